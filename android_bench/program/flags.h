/* amc_bench's command line. */
#ifndef AMC_BENCH_FLAGS_H
#define AMC_BENCH_FLAGS_H

#include <stdbool.h>

#define AMC_BENCH_VERSION "1" /* of the flags and of the lines that are printed */

enum { MAX_WATCHED = 64 };

enum ExitCode {
    EXIT_DONE = 0, /* every model has its line, be it an error */
    EXIT_OUTPUT = 1,
    EXIT_FLAGS = 2,
    EXIT_LIBRARY = 3,
    EXIT_CORES = 4,
    EXIT_TIMEOUT = 5,
};

typedef struct {
    const char *library;
    const char *cores; /* a list such as 2,3; NULL to leave them to the system */
    long threads;
    long warmup;
    long runs;
    long max_runs;
    long raw;
    long op_profile;
    double warmup_ms;
    double min_time_ms;
    double timeout_s;
    const char *watched[MAX_WATCHED];
    int watched_count;
    char **models;
    int model_count;
} Flags;

/* The flags of this command line. Ends the process after --help and --version, and with EXIT_FLAGS for a mistake. */
Flags parse_flags(int count, char **arguments);

/* The next number of a comma list, and in `list` what is left of it (NULL at the end); -1 for what is none. */
long next_number(const char **list);

#endif
