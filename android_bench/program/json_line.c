#include "json_line.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void reserve(JsonLine *line, size_t more) {
    if (line->length + more <= line->capacity) return;
    line->capacity = 2 * (line->length + more);
    line->text = realloc(line->text, line->capacity);
    if (!line->text) {
        fputs("amc_bench: out of memory\n", stderr);
        exit(1);
    }
}

void json_print(JsonLine *line, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int needed = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    reserve(line, (size_t)needed + 1);
    vsnprintf(line->text + line->length, (size_t)needed + 1, format, again);
    va_end(again);
    line->length += (size_t)needed;
}

void json_begin(JsonLine *line) {
    line->length = 0;
    json_print(line, "{");
}

void json_name(JsonLine *line, const char *name) {
    json_print(line, "%s\"%s\":", line->length > 1 ? "," : "", name);
}

/* The code point that starts at `text`, and in `bytes` how long it is; 0 bytes if it is not UTF-8. */
static uint32_t decode_utf8(const unsigned char *text, size_t *bytes) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t first = text[0];
    *bytes = first < 0x80 ? 1 : first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : first >> 3 == 30 ? 4 : 0;
    if (*bytes < 2) return first;
    uint32_t code = first & (0x7fu >> *bytes);
    for (size_t i = 1; i < *bytes; i++) {
        if (text[i] >> 6 != 2) {
            *bytes = 0;
            return 0;
        }
        code = code << 6 | (text[i] & 0x3f);
    }
    bool surrogate = code >= 0xd800 && code < 0xe000;
    if (code < least[*bytes] || code > 0x10ffff || surrogate) *bytes = 0;
    return code;
}

void json_string(JsonLine *line, const char *string) {
    json_print(line, "\"");
    for (const unsigned char *text = (const unsigned char *)string; *text;) {
        size_t bytes;
        uint32_t code = decode_utf8(text, &bytes);
        if (bytes == 0)
            json_print(line, "\\udc%02x", *text);
        else if (code == '"' || code == '\\')
            json_print(line, "\\%c", (char)code);
        else if (code >= 0x20 && code < 0x7f)
            json_print(line, "%c", (char)code);
        else if (code < 0x10000)
            json_print(line, "\\u%04x", (unsigned)code);
        else
            json_print(line, "\\u%04x\\u%04x", (unsigned)(0xd7c0 + (code >> 10)), (unsigned)(0xdc00 + (code & 0x3ff)));
        text += bytes ? bytes : 1;
    }
    json_print(line, "\"");
}

static uint32_t crc32(const char *text, size_t length) {
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < length; i++) {
        crc ^= (unsigned char)text[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

void json_end(JsonLine *line) {
    uint32_t crc = crc32(line->text, line->length);
    json_print(line, ",\"crc\":\"%08x\"}\n", (unsigned)crc);
}

bool json_write(const JsonLine *line, int descriptor) {
    size_t written = 0;
    while (written < line->length) {
        ssize_t count = write(descriptor, line->text + written, line->length - written);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return false;
        written += (size_t)count;
    }
    return true;
}
