/* JSON objects of one line each, with a checksum, so that a garbled or truncated line is never read as a number. */
#ifndef AMC_BENCH_JSON_LINE_H
#define AMC_BENCH_JSON_LINE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    char *text;
    size_t length;
    size_t capacity;
} JsonLine;

/* Forget what the line holds and begin a new object; the memory is kept. */
void json_begin(JsonLine *line);

/* `"name":`, with a comma before it where one is due; a value must follow. */
void json_name(JsonLine *line, const char *name);

/* Text as printf writes it: a number, or what opens, parts and closes a list. */
__attribute__((format(printf, 2, 3))) void json_print(JsonLine *line, const char *format, ...);

/* A string. All output is ASCII: UTF-8 becomes \uXXXX, and a byte that is not UTF-8 becomes \udcXX, the lone surrogate
 * that Python's "surrogateescape" makes of it. */
void json_string(JsonLine *line, const char *text);

/* Close the object with `"crc"`: the CRC-32 (zlib's) of all that is before its comma, in hexadecimal; end the line. */
void json_end(JsonLine *line);

/* Write the line to a file descriptor in one call if it takes it, without stdio: safe in a signal handler. */
bool json_write(const JsonLine *line, int descriptor);

#endif
