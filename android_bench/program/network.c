#define _GNU_SOURCE /* strdup */

#include "network.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *status_name(Status status) {
    switch (status) {
        case 1: return "invalid argument";
        case 2: return "out of memory";
        case 3: return "runtime failure";
        case 5: return "unsupported";
        case 6: return "not found";
        case 500: return "not readable as a .tflite file";
        case 501: return "not a valid .tflite file";
        case 504: return "compilation failed";
    }
    return "see LiteRtStatus";
}

/* Whether a call succeeded; if not, remembers why. */
static bool succeeded(Runtime *runtime, const char *function, Status status) {
    if (status == 0) return true;
    snprintf(runtime->error, sizeof runtime->error, "LiteRt%s failed with status %d (%s)", function, status,
             status_name(status));
    return false;
}

static bool enough_memory(Runtime *runtime, const void *memory) {
    if (!memory) snprintf(runtime->error, sizeof runtime->error, "out of memory");
    return memory != NULL;
}

bool runtime_load(Runtime *runtime, const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(runtime->error, sizeof runtime->error, "cannot load LiteRT: %s", dlerror());
        return false;
    }
    const char *missing = NULL;
#define LITERT_LOOK_UP(type, name, parameters)                     \
    *(void **)&runtime->api.name = dlsym(library, "LiteRt" #name); \
    if (!runtime->api.name) missing = "LiteRt" #name;

    LITERT_FUNCTIONS(LITERT_LOOK_UP)
    if (missing) {
        snprintf(runtime->error, sizeof runtime->error, "%s has no %s: it is not LiteRT 2.1.6 to 2.3", path, missing);
        return false;
    }
    /* Without the first, each environment goes looking for GPUs and NPUs. */
    EnvironmentOption options[] = {
        {ENVIRONMENT_ACCELERATORS, {ANY_INTEGER, {ACCELERATOR_CPU}}},
        {ENVIRONMENT_LOG_SEVERITY, {ANY_INTEGER, {SEVERITY_ERROR}}},
    };
    return succeeded(runtime, "CreateEnvironment", runtime->api.CreateEnvironment(2, options, &runtime->environment));
}

static bool add_option(Runtime *runtime, Handle options, const char *id, const char *toml) {
    Handle opaque;
    char *text = strdup(toml);
    return enough_memory(runtime, text) &&
           succeeded(runtime, "CreateOpaqueOptions", runtime->api.CreateOpaqueOptions(id, text, free, &opaque)) &&
           succeeded(runtime, "AddOpaqueOptions", runtime->api.AddOpaqueOptions(options, opaque));
}

static bool compile(Runtime *runtime, Network *network, const char *path, long threads, bool op_profile) {
    const LiteRt *api = &runtime->api;
    char threads_option[64];
    snprintf(threads_option, sizeof threads_option, "num_threads = %ld\n", threads);
    if (access(path, R_OK)) {
        snprintf(runtime->error, sizeof runtime->error, "cannot read the model: %s", strerror(errno));
        return false;
    }
    return succeeded(runtime, "CreateModelFromFile",
                     api->CreateModelFromFile(runtime->environment, path, &network->model)) &&
           succeeded(runtime, "CreateOptions", api->CreateOptions(&network->options)) &&
           succeeded(runtime, "SetOptionsHardwareAccelerators",
                     api->SetOptionsHardwareAccelerators(network->options, ACCELERATOR_CPU)) &&
           add_option(runtime, network->options, "xnnpack", threads_option) &&
           (!op_profile ||
            add_option(runtime, network->options, "runtime_options_string", "enable_profiling = true\n")) &&
           succeeded(runtime, "CreateCompiledModel",
                     api->CreateCompiledModel(runtime->environment, network->model, network->options,
                                              &network->compiled)) &&
           (!op_profile ||
            succeeded(runtime, "CompiledModelGetProfiler",
                      api->CompiledModelGetProfiler(network->compiled, &network->profiler))) &&
           succeeded(runtime, "CompiledModelIsFullyAccelerated",
                     api->CompiledModelIsFullyAccelerated(network->compiled, &network->delegated));
}

/* Floats in [-1, 1), 8-bit integers of all values; zeros for the rest: mostly indices, and zero always exists. */
static void fill(void *address, size_t bytes, int32_t element) {
    uint32_t state = 1;
    size_t values = element == ELEMENT_FLOAT32 ? bytes / sizeof(float) : bytes;
    bool random = element == ELEMENT_FLOAT32 || element == ELEMENT_INT8 || element == ELEMENT_UINT8;
    memset(address, 0, bytes);
    for (size_t i = 0; random && i < values; i++) {
        state = state * 1664525u + 1013904223u; /* the low bits of such a generator are poor */
        if (element == ELEMENT_FLOAT32)
            ((float *)address)[i] = (float)(state >> 8) / (float)(1 << 23) - 1.0f;
        else
            ((uint8_t *)address)[i] = (uint8_t)(state >> 24);
    }
}

static bool make_input(Runtime *runtime, Network *network, Handle signature, size_t index) {
    const LiteRt *api = &runtime->api;
    Handle tensor, requirements, *buffer = &network->inputs[index];
    TensorType type;
    void *address;
    size_t bytes;
    if (!succeeded(runtime, "GetSignatureInputTensorByIndex",
                   api->GetSignatureInputTensorByIndex(signature, index, &tensor)) ||
        !succeeded(runtime, "GetRankedTensorType", api->GetRankedTensorType(tensor, &type)) ||
        !succeeded(runtime, "GetCompiledModelInputBufferRequirements",
                   api->GetCompiledModelInputBufferRequirements(network->compiled, 0, index, &requirements)) ||
        !succeeded(runtime, "CreateManagedTensorBufferFromRequirements",
                   api->CreateManagedTensorBufferFromRequirements(runtime->environment, &type, requirements, buffer)) ||
        !succeeded(runtime, "GetTensorBufferSize", api->GetTensorBufferSize(*buffer, &bytes)) ||
        !succeeded(runtime, "LockTensorBuffer", api->LockTensorBuffer(*buffer, &address, LOCK_FOR_WRITING)))
        return false;
    fill(address, bytes, type.element);
    return succeeded(runtime, "UnlockTensorBuffer", api->UnlockTensorBuffer(*buffer));
}

static bool make_output(Runtime *runtime, Network *network, Handle signature, size_t index) {
    const LiteRt *api = &runtime->api;
    Handle tensor, requirements, *buffer = &network->outputs[index];
    TensorType type;
    return succeeded(runtime, "GetSignatureOutputTensorByIndex",
                     api->GetSignatureOutputTensorByIndex(signature, index, &tensor)) &&
           succeeded(runtime, "GetRankedTensorType", api->GetRankedTensorType(tensor, &type)) &&
           succeeded(runtime, "GetCompiledModelOutputBufferRequirements",
                     api->GetCompiledModelOutputBufferRequirements(network->compiled, 0, index, &requirements)) &&
           succeeded(runtime, "CreateManagedTensorBufferFromRequirements",
                     api->CreateManagedTensorBufferFromRequirements(runtime->environment, &type, requirements, buffer));
}

static bool make_buffers(Runtime *runtime, Network *network) {
    const LiteRt *api = &runtime->api;
    Handle signature;
    size_t inputs, outputs;
    if (!succeeded(runtime, "GetModelSignature", api->GetModelSignature(network->model, 0, &signature)) ||
        !succeeded(runtime, "GetNumSignatureInputs", api->GetNumSignatureInputs(signature, &inputs)) ||
        !succeeded(runtime, "GetNumSignatureOutputs", api->GetNumSignatureOutputs(signature, &outputs)))
        return false;
    network->inputs = calloc(inputs + 1, sizeof(Handle));
    network->outputs = calloc(outputs + 1, sizeof(Handle));
    if (!enough_memory(runtime, network->inputs) || !enough_memory(runtime, network->outputs)) return false;
    network->input_count = inputs;
    network->output_count = outputs;
    for (size_t i = 0; i < inputs; i++)
        if (!make_input(runtime, network, signature, i)) return false;
    for (size_t i = 0; i < outputs; i++)
        if (!make_output(runtime, network, signature, i)) return false;
    return true;
}

bool network_load(Runtime *runtime, Network *network, const char *path, long threads, bool op_profile) {
    memset(network, 0, sizeof *network);
    return compile(runtime, network, path, threads, op_profile) && make_buffers(runtime, network);
}

bool network_run(Runtime *runtime, const Network *network) {
    return succeeded(runtime, "RunCompiledModel",
                     runtime->api.RunCompiledModel(network->compiled, 0, network->input_count, network->inputs,
                                                   network->output_count, network->outputs));
}

void network_release(const Runtime *runtime, Network *network) {
    const LiteRt *api = &runtime->api;
    for (size_t i = 0; i < network->input_count; i++)
        if (network->inputs[i]) api->DestroyTensorBuffer(network->inputs[i]);
    for (size_t i = 0; i < network->output_count; i++)
        if (network->outputs[i]) api->DestroyTensorBuffer(network->outputs[i]);
    free(network->inputs);
    free(network->outputs);
    if (network->compiled) api->DestroyCompiledModel(network->compiled);
    if (network->options) api->DestroyOptions(network->options);
    if (network->model) api->DestroyModel(network->model);
    memset(network, 0, sizeof *network);
}

bool network_start_profile(Runtime *runtime, const Network *network) {
    return succeeded(runtime, "StartProfiler", runtime->api.StartProfiler(network->profiler));
}

bool network_profile(Runtime *runtime, const Network *network, char **text) {
    *text = NULL;
    return succeeded(runtime, "StopProfiler", runtime->api.StopProfiler(network->profiler)) &&
           succeeded(runtime, "GetProfileSummary",
                     runtime->api.GetProfileSummary(network->profiler, network->compiled, text)) &&
           enough_memory(runtime, *text);
}
