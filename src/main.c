/*
 * main: the native executable.
 *
 * Help, version, --print-config, wrong usage and healthcheck are answered here, without Python. An
 * application is Python's, and so are `weir status` and `weir stacks`: `python3 -m weir` of the
 * active environment takes over this process, with the same arguments.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/conf.h"
#include "obs/metric.h"
#include "proc/healthcheck.h"
#include "proc/signals.h"

/* Where the package with its extension is, seen from this executable: beside it in the build tree;
 * when installed in a folder that has it alone, so that a virtual environment, which does not look
 * into the system's modules, finds it as well. */
static bool package_beside(char *out, size_t n)
{
    static const char *const places[] = {"python", "../lib/weir/python"};
    char self[PATH_MAX], probe[PATH_MAX + 64];
    ssize_t k = readlink("/proc/self/exe", self, sizeof self - 1);
    if (k <= 0)
        return false;
    self[k] = 0;
    const char *folder = dirname(self);
    for (size_t i = 0; i < countof(places); i++) {
        snprintf(probe, sizeof probe, "%s/%s/weir/__init__.py", folder, places[i]);
        if (access(probe, R_OK) == 0)
            return (size_t)snprintf(out, n, "%s/%s", folder, places[i]) < n;
    }
    return false;
}

/* Put `folder` first on PYTHONPATH. */
static int add_python_path(const char *folder)
{
    const char *old = getenv("PYTHONPATH");
    char *path = NULL;
    if (asprintf(&path, "%s%s%s", folder, old && *old ? ":" : "", old ? old : "") < 0)
        return -1;
    int rc = setenv("PYTHONPATH", path, 1);
    free(path);
    return rc;
}

static void try_python(char *const *args)
{
    if (strchr(args[0], '/'))
        execv(args[0], args);
    else
        execvp(args[0], args);
}

/* Become `python3 -m weir ARGUMENTS`. `serves`: signals wait until the package can handle them.
 * Returns only on failure. */
static int run_python(int argc, char *const *argv, bool serves)
{
    const char *venv = getenv("VIRTUAL_ENV");
    const char *chosen = getenv("WEIR_PYTHON");
    char venv_python[PATH_MAX] = "", package[PATH_MAX];
    if (venv && *venv)
        snprintf(venv_python, sizeof venv_python, "%.4000s/bin/python3", venv);
    const char *const pythons[] = {venv_python, chosen ? chosen : "", "/usr/bin/python3",
                                   "python3"};

    char **args = calloc((size_t)argc + 3, sizeof *args);
    if (!args || (package_beside(package, sizeof package) && add_python_path(package) != 0)) {
        fprintf(stderr, "weir: out of memory\n");
        free(args);
        return 1;
    }
    args[1] = (char *)(size_t) "-m";
    args[2] = (char *)(size_t) "weir";
    for (int i = 1; i < argc; i++)
        args[i + 2] = argv[i];
    fflush(NULL);
    if (serves)
        signals_hold();
    for (size_t i = 0; i < countof(pythons); i++) {
        if (!*pythons[i])
            continue;
        args[0] = (char *)(size_t)pythons[i];
        try_python(args);
        if (pythons[i] == chosen)
            fprintf(stderr, "weir: cannot run WEIR_PYTHON '%s': %s\n", chosen, strerror(errno));
    }
    fprintf(stderr, "weir: no Python found to run the application; activate a virtual environment "
                    "or set WEIR_PYTHON to a python3\n");
    free(args);
    return 1;
}

/* `weir healthcheck …`: without Python, because it runs every few seconds. */
static int healthcheck(int argc, char **argv)
{
    static char name[] = "weir healthcheck";
    argv[1] = name;
    return healthcheck_main(argc - 1, argv + 1, environ, stdout, stderr);
}

/* A full disk or a closed pipe must not look like success. */
static int told(int status)
{
    if (fflush(stdout) != 0 && status == 0) {
        fprintf(stderr, "weir: cannot write to standard output: %s\n", strerror(errno));
        return 1;
    }
    return status;
}

/* The reference that is not made of tables of src/conf. */
static bool wants_metrics(int argc, char **argv)
{
    return argc == 3 && strcmp(argv[1], "--dump-reference") == 0 && strcmp(argv[2], "metrics") == 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "healthcheck") == 0)
        return healthcheck(argc, argv);
    if (wants_metrics(argc, argv)) {
        metric_reference(stdout);
        return told(0);
    }
    if (argc > 1 && (strcmp(argv[1], "status") == 0 || strcmp(argv[1], "stacks") == 0))
        return run_python(argc, argv, false);
    /* By enum conf_dialect. */
    static const char *const names[] = {"weir", "weir waitress-serve", "weir gunicorn"};
    const char *word = argc > 1 ? argv[1] : "";
    enum conf_dialect dialect = strcmp(word, "waitress-serve") == 0 ? CONF_WAITRESS
                                : strcmp(word, "gunicorn") == 0     ? CONF_GUNICORN
                                                                    : CONF_WEIR;
    struct conf conf;
    struct err e = {0};
    enum conf_action action;
    int status = 1;

    /* The arguments of the dialect, under its name. */
    int skip = dialect != CONF_WEIR;
    int n = argc ? argc - skip : 1;
    char **args = calloc((size_t)n + 1, sizeof *args);
    if (!args) {
        fprintf(stderr, "weir: out of memory\n");
        return 1;
    }
    args[0] = (char *)(size_t)names[dialect];
    for (int i = 1; i < n; i++)
        args[i] = argv[i + skip];

    if (conf_init(&conf, dialect, &e) ||
        conf_load(&conf, n, args, environ, stdout, &action, &status, &e)) {
        conf_complain(&conf, args[0], &e, stderr);
        goto out;
    }
    switch (action) {
    case CONF_EXIT:
        break;
    case CONF_PRINT:
        if (dialect == CONF_GUNICORN) { /* its configuration file is Python */
            status = run_python(argc, argv, true);
            break;
        }
        conf_notes(&conf, stderr);
        conf_print(&conf, stdout);
        break;
    case CONF_RUN:
    case CONF_CHECK:
        status = run_python(argc, argv, true);
        break;
    }
    status = told(status);
out:
    conf_fini(&conf);
    free(args);
    return status;
}
