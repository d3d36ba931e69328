/* version: the one place that says which Weir this is. */
#ifndef WEIR_CONF_VERSION_H
#define WEIR_CONF_VERSION_H

#define WEIR_VERSION "0.2.0"

#endif
