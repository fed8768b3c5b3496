/* The part of LiteRT's C API that amc_bench uses, looked up in libLiteRt.so at run time.
 *
 * Declared here from the documented signatures, so that no LiteRT sources are needed. They hold for the libraries of
 * ai-edge-litert 2.1.6 to 2.3; before that, LiteRtCreateModelFromFile took no environment. */
#ifndef AMC_BENCH_LITERT_API_H
#define AMC_BENCH_LITERT_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef void *Handle; /* every LiteRT object is an opaque pointer */
typedef int Status;   /* 0 is success */

enum {
    ACCELERATOR_CPU = 1,
    LOCK_FOR_WRITING = 1,
    ELEMENT_FLOAT32 = 1,
    ELEMENT_UINT8 = 3,
    ELEMENT_INT8 = 9,
    ENVIRONMENT_ACCELERATORS = 24, /* which accelerators to look for */
    ENVIRONMENT_LOG_SEVERITY = 25, /* the least severity that is logged */
    ANY_INTEGER = 2,               /* the kind of an option's value */
    SEVERITY_ERROR = 3,
};

typedef struct {
    int32_t element;
    unsigned rank : 7;
    unsigned has_strides : 1;
    int32_t dimensions[8];
    uint32_t strides[8];
} TensorType;
_Static_assert(sizeof(TensorType) == 72, "LiteRtRankedTensorType has 72 bytes");

typedef struct {
    int32_t tag;
    struct {
        int32_t kind;
        union {
            int64_t integer;
            double real;
            const void *pointer;
        };
    } value;
} EnvironmentOption;
_Static_assert(sizeof(EnvironmentOption) == 24, "LiteRtEnvOption has 24 bytes");

/* FUNCTION(returned type, name without its prefix LiteRt, parameters) */
#define LITERT_FUNCTIONS(FUNCTION)                                                                             \
    FUNCTION(Status, CreateEnvironment, (int count, const EnvironmentOption *, Handle *environment))           \
    FUNCTION(void, DestroyEnvironment, (Handle))                                                               \
    FUNCTION(Status, CreateModelFromFile, (Handle environment, const char *path, Handle *model))               \
    FUNCTION(void, DestroyModel, (Handle))                                                                     \
    FUNCTION(Status, CreateOptions, (Handle *))                                                                \
    FUNCTION(void, DestroyOptions, (Handle))                                                                   \
    FUNCTION(Status, SetOptionsHardwareAccelerators, (Handle options, int accelerators))                       \
    FUNCTION(Status, CreateOpaqueOptions, (const char *id, void *text, void (*destroy)(void *), Handle *))     \
    FUNCTION(Status, AddOpaqueOptions, (Handle options, Handle opaque))                                        \
    FUNCTION(Status, CreateCompiledModel, (Handle environment, Handle model, Handle options, Handle *))        \
    FUNCTION(void, DestroyCompiledModel, (Handle))                                                             \
    FUNCTION(Status, CompiledModelIsFullyAccelerated, (Handle compiled, bool *))                               \
    FUNCTION(Status, GetModelSignature, (Handle model, size_t index, Handle *signature))                       \
    FUNCTION(Status, GetNumSignatureInputs, (Handle signature, size_t *))                                      \
    FUNCTION(Status, GetNumSignatureOutputs, (Handle signature, size_t *))                                     \
    FUNCTION(Status, GetSignatureInputTensorByIndex, (Handle signature, size_t index, Handle *tensor))         \
    FUNCTION(Status, GetSignatureOutputTensorByIndex, (Handle signature, size_t index, Handle *tensor))        \
    FUNCTION(Status, GetRankedTensorType, (Handle tensor, TensorType *))                                       \
    FUNCTION(Status, GetCompiledModelInputBufferRequirements,                                                  \
             (Handle compiled, size_t signature, size_t index, Handle *requirements))                          \
    FUNCTION(Status, GetCompiledModelOutputBufferRequirements,                                                 \
             (Handle compiled, size_t signature, size_t index, Handle *requirements))                          \
    FUNCTION(Status, CreateManagedTensorBufferFromRequirements,                                                \
             (Handle environment, const TensorType *, Handle requirements, Handle *buffer))                    \
    FUNCTION(void, DestroyTensorBuffer, (Handle))                                                              \
    FUNCTION(Status, LockTensorBuffer, (Handle buffer, void **address, int mode))                              \
    FUNCTION(Status, UnlockTensorBuffer, (Handle buffer))                                                      \
    FUNCTION(Status, GetTensorBufferSize, (Handle buffer, size_t *bytes))                                      \
    FUNCTION(Status, RunCompiledModel,                                                                         \
             (Handle compiled, size_t signature, size_t, Handle *inputs, size_t, Handle *outputs))             \
    FUNCTION(Status, CompiledModelGetProfiler, (Handle compiled, Handle *profiler))                            \
    FUNCTION(Status, StartProfiler, (Handle profiler))                                                         \
    FUNCTION(Status, StopProfiler, (Handle profiler))                                                          \
    FUNCTION(Status, GetProfileSummary, (Handle profiler, Handle compiled, char **text_to_free))

#define LITERT_MEMBER(type, name, parameters) type(*name) parameters;
typedef struct {
    LITERT_FUNCTIONS(LITERT_MEMBER)
} LiteRt;

#endif
