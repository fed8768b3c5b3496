#include "flags.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char USAGE[] =
    "usage: amc_bench [--flag=value ...] [--] MODEL.tflite ...\n"
    "Time models through LiteRT and XNNPACK. Prints a header, a JSON object a line for each model, and a last line.\n"
    "  --lib=FILE          libLiteRt.so (default: libLiteRt.so where the linker finds it)\n"
    "  --threads=N         threads of XNNPACK (1)\n"
    "  --cores=2,3         stay on these cores (default: wherever the system likes)\n"
    "  --warmup=N          uncounted runs, at least (3)\n"
    "  --warmup_ms=T       and at least this long (200)\n"
    "  --runs=N            counted runs, at least (20)\n"
    "  --min_time_ms=T     and at least this long (100)\n"
    "  --max_runs=N        and at most so many (1000)\n"
    "  --timeout_s=T       a model that takes longer ends the program (60)\n"
    "  --watch=FILE        read this before and after each model; may be repeated\n"
    "  --raw=1             print every sample\n"
    "  --op_profile=1      print what each operator takes; timings of such a run mean nothing\n"
    "  --help, --version\n"
    "Exit codes: 0 done, 1 cannot write, 2 wrong flags, 3 library not usable, 4 cores not to be had, 5 time-out.\n";

__attribute__((noreturn, format(printf, 1, 2))) static void refuse(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("amc_bench: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs(" (see --help)\n", stderr);
    va_end(arguments);
    exit(EXIT_FLAGS);
}

static bool only_of(const char *text, const char *characters) {
    return *text && text[strspn(text, characters)] == '\0';
}

static long parse_integer(const char *name, const char *value, long least, long most) {
    errno = 0;
    long number = only_of(value, "0123456789") ? strtol(value, NULL, 10) : -1;
    if (errno || number < least || number > most)
        refuse("--%s=%s is not a whole number from %ld to %ld", name, value, least, most);
    return number;
}

static double parse_decimal(const char *name, const char *value, double least, double most) {
    char *end = NULL;
    double number = only_of(value, "0123456789.") ? strtod(value, &end) : -1;
    if (!end || *end || number < least || number > most)
        refuse("--%s=%s is not a number from %g to %g", name, value, least, most);
    return number;
}

long next_number(const char **list) {
    char *end;
    if (**list < '0' || **list > '9') return -1;
    errno = 0;
    long number = strtol(*list, &end, 10);
    if (errno || (*end && *end != ',')) return -1;
    *list = *end ? end + 1 : NULL;
    return number;
}

static void set_flag(Flags *flags, const char *name, const char *value) {
    const struct {
        const char *name;
        long *target, least, most;
    } integers[] = {
        {"threads", &flags->threads, 1, 256},       {"warmup", &flags->warmup, 0, 1000000},
        {"runs", &flags->runs, 1, 1000000},         {"max_runs", &flags->max_runs, 1, 1000000},
        {"op_profile", &flags->op_profile, 0, 1},   {"raw", &flags->raw, 0, 1},
    };
    const struct {
        const char *name;
        double *target, least, most;
    } decimals[] = {
        {"warmup_ms", &flags->warmup_ms, 0, 1e6},
        {"min_time_ms", &flags->min_time_ms, 0, 1e6},
        {"timeout_s", &flags->timeout_s, 0.001, 1e6},
    };
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        if (strcmp(name, integers[i].name) == 0) {
            *integers[i].target = parse_integer(name, value, integers[i].least, integers[i].most);
            return;
        }
    }
    for (size_t i = 0; i < sizeof decimals / sizeof *decimals; i++) {
        if (strcmp(name, decimals[i].name) == 0) {
            *decimals[i].target = parse_decimal(name, value, decimals[i].least, decimals[i].most);
            return;
        }
    }
    if (*value == '\0') refuse("--%s has no value", name);
    if (strcmp(name, "lib") == 0) {
        flags->library = value;
    } else if (strcmp(name, "cores") == 0) {
        flags->cores = value;
        for (const char *list = value; list;)
            if (next_number(&list) < 0) refuse("--cores=%s is not a list of cores such as 2,3", value);
    } else if (strcmp(name, "watch") == 0) {
        if (flags->watched_count == MAX_WATCHED) refuse("more than %d files to watch", MAX_WATCHED);
        flags->watched[flags->watched_count++] = value;
    } else {
        refuse("no such flag: --%s", name);
    }
}

Flags parse_flags(int count, char **arguments) {
    Flags flags = {
        .library = "libLiteRt.so",
        .threads = 1,
        .warmup = 3,
        .warmup_ms = 200,
        .runs = 20,
        .min_time_ms = 100,
        .max_runs = 1000,
        .timeout_s = 60,
    };
    int i = 1;
    for (; i < count && strncmp(arguments[i], "--", 2) == 0; i++) {
        char *name = arguments[i] + 2;
        if (*name == '\0') {
            i++;
            break;
        }
        if (strcmp(name, "help") == 0 || strcmp(name, "version") == 0) {
            fputs(*name == 'h' ? USAGE : "amc_bench " AMC_BENCH_VERSION "\n", stdout);
            exit(EXIT_DONE);
        }
        char *equals = strchr(name, '=');
        if (!equals) refuse("%s is no flag, or has no value", arguments[i]);
        *equals = '\0';
        set_flag(&flags, name, equals + 1);
    }
    if (flags.max_runs < flags.runs) refuse("--max_runs=%ld is below --runs=%ld", flags.max_runs, flags.runs);
    if (i == count) refuse("no model given");
    flags.models = arguments + i;
    flags.model_count = count - i;
    return flags;
}
