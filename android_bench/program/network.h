/* A model that LiteRT has loaded for XNNPACK, with buffers for its inputs and outputs. */
#ifndef AMC_BENCH_NETWORK_H
#define AMC_BENCH_NETWORK_H

#include <stdbool.h>
#include <stddef.h>

#include "litert_api.h"

typedef struct {
    LiteRt api;
    Handle environment;
    char error[512]; /* why the last call of a function below was false */
} Runtime;

/* What is not there (yet) is NULL. */
typedef struct {
    Handle model, options, compiled, profiler;
    Handle *inputs, *outputs;
    size_t input_count, output_count;
    bool delegated; /* XNNPACK took every operator */
} Network;

bool runtime_load(Runtime *runtime, const char *path);
bool network_load(Runtime *runtime, Network *network, const char *path, long threads, bool op_profile);
bool network_run(Runtime *runtime, const Network *network);
/* Harmless for a network that was not loaded, or in part. */
void network_release(const Runtime *runtime, Network *network);

/* Operators are profiled from here to network_profile, which gives a text to be freed. */
bool network_start_profile(Runtime *runtime, const Network *network);
bool network_profile(Runtime *runtime, const Network *network, char **text);

#endif
