/* Times many .tflite models in one process through LiteRT's C API and XNNPACK, on Android and Linux.
 *
 * Standard output gets a JSON object a line: a header, one for each model in order, and {"done": N}. See --help. */
#define _GNU_SOURCE /* sched_setaffinity, sched_getcpu */

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "flags.h"
#include "json_line.h"
#include "network.h"

typedef struct {
    int64_t *wall_ns, *thread_cpu_ns; /* room for max_runs each */
    long count;
    long warmup_runs;
    int core_before, core_after;
    long voluntary_switches, involuntary_switches;
} Samples;

/* ---- failure ---- */

__attribute__((noreturn, format(printf, 2, 3))) static void quit(enum ExitCode code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("amc_bench: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs("\n", stderr);
    va_end(arguments);
    exit(code);
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) quit(EXIT_OUTPUT, "out of memory");
    return memory;
}

/* ---- output ---- */

static void print_line(JsonLine *line) {
    json_end(line);
    if (!json_write(line, STDOUT_FILENO)) quit(EXIT_OUTPUT, "cannot write the results: %s", strerror(errno));
}

static void json_microseconds(JsonLine *line, const char *name, double ns) {
    json_name(line, name);
    json_print(line, "%.3f", ns / 1e3);
}

static void begin_model(JsonLine *line, int index, const char *model, const char *status) {
    json_begin(line);
    json_name(line, "index");
    json_print(line, "%d", index);
    json_name(line, "model");
    json_string(line, model);
    json_name(line, "status");
    json_string(line, status);
}

static void make_error(JsonLine *line, int index, const char *model, const char *error) {
    begin_model(line, index, model, "error");
    json_name(line, "error");
    json_string(line, error);
}

/* ---- giving a model up ---- */

static const int FATAL_SIGNALS[] = {SIGALRM, SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE};

static struct {
    JsonLine if_late, if_crashed; /* ready to be written by a signal handler */
} last_words;

/* Neither a run that takes too long nor a crash can be left behind, so the process ends, and says on which model.
 * Only async-signal-safe calls here. */
static void give_up(int number) {
    const JsonLine *line = number == SIGALRM ? &last_words.if_late : &last_words.if_crashed;
    if (!json_write(line, STDOUT_FILENO)) _exit(EXIT_OUTPUT);
    _exit(number == SIGALRM ? EXIT_TIMEOUT : 128 + number);
}

static void on_fatal_signals(void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler};
    for (size_t i = 0; i < sizeof FATAL_SIGNALS / sizeof *FATAL_SIGNALS; i++)
        if (sigaction(FATAL_SIGNALS[i], &action, NULL)) quit(EXIT_FLAGS, "cannot handle signals: %s", strerror(errno));
}

static void set_timer(double seconds) {
    struct itimerval timer = {.it_value.tv_sec = (time_t)seconds};
    timer.it_value.tv_usec = (suseconds_t)((seconds - (double)timer.it_value.tv_sec) * 1e6);
    if (setitimer(ITIMER_REAL, &timer, NULL)) quit(EXIT_FLAGS, "cannot set a timer: %s", strerror(errno));
}

static void make_last_words(JsonLine *line, int index, const char *model, const char *error) {
    make_error(line, index, model, error);
    json_name(line, "fatal"); /* the models after it are not reached */
    json_print(line, "true");
    json_end(line);
}

static void start_guard(int index, const char *model, double timeout_s) {
    char error[64];
    snprintf(error, sizeof error, "took longer than %g s", timeout_s);
    make_last_words(&last_words.if_late, index, model, error);
    make_last_words(&last_words.if_crashed, index, model, "LiteRT crashed on it");
    on_fatal_signals(give_up);
    set_timer(timeout_s);
}

static void stop_guard(void) {
    set_timer(0);
    on_fatal_signals(SIG_DFL);
}

/* ---- start ---- */

static void stay_on(const char *list) {
    cpu_set_t wanted, got;
    CPU_ZERO(&wanted);
    for (const char *rest = list; rest;) {
        long core = next_number(&rest);
        if (core >= CPU_SETSIZE) quit(EXIT_CORES, "there is no core %ld", core);
        CPU_SET((size_t)core, &wanted);
    }
    if (sched_setaffinity(0, sizeof wanted, &wanted))
        quit(EXIT_CORES, "cannot stay on cores %s: %s", list, strerror(errno));
    /* The kernel leaves out cores that are not there without a word. */
    if (sched_getaffinity(0, sizeof got, &got) || !CPU_EQUAL(&wanted, &got))
        quit(EXIT_CORES, "cannot stay on cores %s: not all of them are there", list);
}

/* ---- timing ---- */

static int64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static bool warm_up(Runtime *runtime, const Network *network, const Flags *flags, Samples *samples) {
    int64_t end_ns = clock_ns(CLOCK_MONOTONIC) + (int64_t)(flags->warmup_ms * 1e6);
    long runs = 0;
    for (; runs < flags->warmup || clock_ns(CLOCK_MONOTONIC) < end_ns; runs++)
        if (!network_run(runtime, network)) return false;
    samples->warmup_runs = runs;
    return true;
}

static bool time_runs(Runtime *runtime, const Network *network, const Flags *flags, Samples *samples) {
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    samples->core_before = sched_getcpu();
    int64_t end_ns = clock_ns(CLOCK_MONOTONIC) + (int64_t)(flags->min_time_ms * 1e6);
    long n = 0;
    for (; n < flags->runs || (n < flags->max_runs && clock_ns(CLOCK_MONOTONIC) < end_ns); n++) {
        /* Reading a thread's CPU time is a system call, so it stays outside of the wall clock's two. */
        int64_t cpu_start = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        int64_t wall_start = clock_ns(CLOCK_MONOTONIC);
        if (!network_run(runtime, network)) return false;
        samples->wall_ns[n] = clock_ns(CLOCK_MONOTONIC) - wall_start;
        samples->thread_cpu_ns[n] = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_start;
    }
    samples->count = n;
    samples->core_after = sched_getcpu();
    getrusage(RUSAGE_SELF, &after);
    samples->voluntary_switches = after.ru_nvcsw - before.ru_nvcsw;
    samples->involuntary_switches = after.ru_nivcsw - before.ru_nivcsw;
    return true;
}

/* ---- a model's line ---- */

static int compare(const void *left, const void *right) {
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static double median(const int64_t *sorted, long count) {
    return (double)(sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
}

/* Sorts the samples. */
static void add_figures(JsonLine *line, Samples *samples) {
    long n = samples->count;
    double sum = 0, squares = 0;
    qsort(samples->wall_ns, (size_t)n, sizeof(int64_t), compare);
    qsort(samples->thread_cpu_ns, (size_t)n, sizeof(int64_t), compare);
    for (long i = 0; i < n; i++) sum += (double)samples->wall_ns[i];
    double mean = sum / (double)n;
    for (long i = 0; i < n; i++) {
        double deviation = (double)samples->wall_ns[i] - mean;
        squares += deviation * deviation;
    }
    json_microseconds(line, "min_us", (double)samples->wall_ns[0]);
    json_microseconds(line, "median_us", median(samples->wall_ns, n));
    json_microseconds(line, "mean_us", mean);
    json_microseconds(line, "std_us", sqrt(squares / (double)n));
    json_microseconds(line, "thread_cpu_min_us", (double)samples->thread_cpu_ns[0]);
    json_microseconds(line, "thread_cpu_median_us", median(samples->thread_cpu_ns, n));
}

static void add_raw(JsonLine *line, const char *name, const int64_t *ns, long count) {
    json_name(line, name);
    for (long i = 0; i < count; i++) json_print(line, "%s%lld", i ? "," : "[", (long long)ns[i]);
    json_print(line, "]");
}

/* A small file's text without the white space around it; "?" if it cannot be read. */
static void read_watched(const char *path, char *text, size_t size) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, text, size - 1);
    if (file >= 0) close(file);
    if (length < 0) {
        strcpy(text, "?");
        return;
    }
    text[length] = '\0';
    size_t start = strspn(text, " \t\r\n");
    size_t end = strlen(text);
    while (end > start && strchr(" \t\r\n", text[end - 1])) end--;
    memmove(text, text + start, end - start);
    text[end - start] = '\0';
}

static void add_watched(JsonLine *line, const char *name, const Flags *flags) {
    json_name(line, name);
    json_print(line, "[");
    for (int i = 0; i < flags->watched_count; i++) {
        char text[256];
        read_watched(flags->watched[i], text, sizeof text);
        if (i) json_print(line, ",");
        json_string(line, text);
    }
    json_print(line, "]");
}

static void add_samples(JsonLine *line, const Flags *flags, Samples *samples) {
    json_name(line, "warmup");
    json_print(line, "%ld", samples->warmup_runs);
    json_name(line, "cpu");
    json_print(line, "[%d,%d]", samples->core_before, samples->core_after);
    json_name(line, "context_switches");
    json_print(line, "[%ld,%ld]", samples->voluntary_switches, samples->involuntary_switches);
    if (flags->raw) {
        add_raw(line, "wall_ns", samples->wall_ns, samples->count);
        add_raw(line, "thread_cpu_ns", samples->thread_cpu_ns, samples->count);
    }
    json_name(line, "n");
    json_print(line, "%ld", samples->count);
    add_figures(line, samples);
}

/* Add all that is found out about one model; on failure, runtime->error says why. */
static bool time_model(Runtime *runtime, const char *path, const Flags *flags, Samples *samples, JsonLine *line) {
    Network network;
    char *op_profile = NULL;
    add_watched(line, "before", flags);
    bool timed = network_load(runtime, &network, path, flags->threads, flags->op_profile) &&
                 warm_up(runtime, &network, flags, samples) &&
                 (!flags->op_profile || network_start_profile(runtime, &network)) &&
                 time_runs(runtime, &network, flags, samples) &&
                 (!flags->op_profile || network_profile(runtime, &network, &op_profile));
    if (timed) {
        add_watched(line, "after", flags);
        json_name(line, "delegated");
        json_print(line, "%s", network.delegated ? "true" : "false");
        add_samples(line, flags, samples);
        if (op_profile) {
            json_name(line, "op_profile");
            json_string(line, op_profile);
        }
    }
    free(op_profile);
    network_release(runtime, &network);
    return timed;
}

int main(int count, char **arguments) {
    Flags flags = parse_flags(count, arguments);
    if (flags.cores) stay_on(flags.cores); /* before there are threads, which inherit it */
    Runtime runtime = {0};
    if (!runtime_load(&runtime, flags.library)) quit(EXIT_LIBRARY, "%s", runtime.error);
    Samples samples = {
        .wall_ns = allocate((size_t)flags.max_runs, sizeof(int64_t)),
        .thread_cpu_ns = allocate((size_t)flags.max_runs, sizeof(int64_t)),
    };
    JsonLine line = {0};

    json_begin(&line);
    json_name(&line, "program");
    json_string(&line, "amc_bench");
    json_name(&line, "version");
    json_string(&line, AMC_BENCH_VERSION);
    json_name(&line, "library");
    json_string(&line, flags.library);
    json_name(&line, "cpus");
    json_print(&line, "%ld", sysconf(_SC_NPROCESSORS_CONF));
    json_name(&line, "threads");
    json_print(&line, "%ld", flags.threads);
    print_line(&line);

    for (int i = 0; i < flags.model_count; i++) {
        start_guard(i, flags.models[i], flags.timeout_s);
        begin_model(&line, i, flags.models[i], "ok");
        if (!time_model(&runtime, flags.models[i], &flags, &samples, &line))
            make_error(&line, i, flags.models[i], runtime.error);
        stop_guard();
        print_line(&line);
    }

    json_begin(&line);
    json_name(&line, "done");
    json_print(&line, "%d", flags.model_count);
    print_line(&line);
    runtime.api.DestroyEnvironment(runtime.environment);
    free(samples.wall_ns);
    free(samples.thread_cpu_ns);
    free(line.text);
    return EXIT_DONE;
}
