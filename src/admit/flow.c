/* flow: see the header. */
#include "admit/flow.h"

#include <arpa/inet.h>
#include <string.h>

/* In place of a limit: none has these numbers. */
static const uint64_t OF_USER = UINT64_MAX, OF_ADDRESS = UINT64_MAX - 1;

enum { NETWORK_BYTES = 8 }; /* of an IPv6 address */

struct flow_net flow_net(const char *remote_addr)
{
    struct flow_net net = {.n = 0};
    struct in6_addr six;
    char text[INET6_ADDRSTRLEN];
    size_t n = strcspn(remote_addr, "%");
    if (n >= sizeof text)
        return net;
    memcpy(text, remote_addr, n);
    text[n] = 0;
    if (inet_pton(AF_INET, text, net.bytes) == 1) {
        net.n = 4;
    } else if (inet_pton(AF_INET6, text, &six) == 1) {
        bool is_four = IN6_IS_ADDR_V4MAPPED(&six);
        net.n = is_four ? 4 : NETWORK_BYTES;
        memcpy(net.bytes, six.s6_addr + (is_four ? 12 : 0), net.n);
    }
    return net;
}

uint64_t flow_of_user(const struct rates *r, struct slice user)
{
    return rates_key(r, OF_USER, user).h[0];
}

uint64_t flow_of_address(const struct rates *r, const char *remote_addr)
{
    struct flow_net net = flow_net(remote_addr);
    return rates_key(r, OF_ADDRESS, flow_net_slice(&net)).h[0];
}
