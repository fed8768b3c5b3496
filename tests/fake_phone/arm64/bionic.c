/* What an Android executable expects of Android's C library, "bionic", and glibc does otherwise or not at all.
 *
 * Built for arm64 and found under the names of Android's own libraries, libc.so first. All else that the executable
 * imports is the same in both libraries on arm64 (where the kernel's structures are the library's), and glibc gives it.
 * Sizes and constants: bionic's libc/include (stdio.h, pthread_types.h, bits/sysconf.h, malloc.h).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The function of this name in glibc: here, its plain name is the one being defined. */
#define GLIBC(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* --- Start and stop ---------------------------------------------------------------------------------------------- */

typedef void constructor(int, char**, char**);

/* Each list starts with an unused entry and ends with a null. */
struct structors {
  constructor** preinit;
  constructor** init;
  void (**fini)(void);
};

static void run_all(constructor** list, int argc, char** argv, char** env) {
  for (constructor** one = list + 1; *one != NULL; one++) (*one)(argc, argv, env);
}

/* Called by an Android executable's entry point. The environment's code hides the lists from glibc's loader, which
 * would call the unused first entry too. Destructors are left out: the process ends anyway. */
void __libc_init(uintptr_t* stack, void (*unused)(void), int (*main)(int, char**, char**), struct structors* lists) {
  (void)unused;
  int argc = (int)stack[0];
  char** argv = (char**)(stack + 1);
  char** env = argv + argc + 1;
  run_all(lists->preinit, argc, argv, env);
  run_all(lists->init, argc, argv, env);
  exit(main(argc, argv, env));
}

/* The stack guard lies 0x28 bytes after the thread pointer, where glibc puts thread variables of the first library it
 * loads. This is that library, and these bytes never change. */
__thread char stack_guard_place[256] __attribute__((used, aligned(16)));

void android_set_abort_message(const char* message) { dprintf(STDERR_FILENO, "abort: %s\n", message); }

/* --- Standard streams: three structures of 152 bytes in a row instead of pointers -------------------------------- */

char __sF[3][152];

static FILE* stream(FILE* file) {
  if ((void*)file == __sF[0]) return stdin;
  if ((void*)file == __sF[1]) return stdout;
  if ((void*)file == __sF[2]) return stderr;
  return file;
}

int fclose(FILE* file) { return GLIBC(fclose)(stream(file)); }
int fflush(FILE* file) { return GLIBC(fflush)(stream(file)); }
int fileno(FILE* file) { return GLIBC(fileno)(stream(file)); }
int fputc(int byte, FILE* file) { return GLIBC(fputc)(byte, stream(file)); }
int fputs(const char* text, FILE* file) { return GLIBC(fputs)(text, stream(file)); }
int getc(FILE* file) { return GLIBC(getc)(stream(file)); }
int ungetc(int byte, FILE* file) { return GLIBC(ungetc)(byte, stream(file)); }
int vfprintf(FILE* file, const char* format, va_list values) { return GLIBC(vfprintf)(stream(file), format, values); }

size_t fread(void* data, size_t size, size_t n, FILE* file) { return GLIBC(fread)(data, size, n, stream(file)); }

size_t fwrite(const void* data, size_t size, size_t n, FILE* file) {
  return GLIBC(fwrite)(data, size, n, stream(file));
}

int fprintf(FILE* file, const char* format, ...) {
  va_list values;
  va_start(values, format);
  int written = vfprintf(file, format, values);
  va_end(values);
  return written;
}

/* --- Structures of another size ---------------------------------------------------------------------------------- */

/* A mutex has 40 bytes, and glibc's, which has 48, uses no more than the first 40: only setting it to zero would write
 * past the end. */
int pthread_mutex_init(pthread_mutex_t* mutex, const pthread_mutexattr_t* attributes) {
  (void)attributes;
  memset(mutex, 0, 40);
  return 0;
}

/* A signal set has 8 bytes, glibc's 128. */
int sigfillset(sigset_t* set) {
  memset(set, 0xff, 8);
  return 0;
}

/* Its fields are size_t, as those of glibc's mallinfo2, and in the same order. */
struct mallinfo2 bionic_mallinfo(void) __asm__("mallinfo");
struct mallinfo2 bionic_mallinfo(void) { return mallinfo2(); }

/* --- Other names and other constants ----------------------------------------------------------------------------- */

int* __errno(void) { return __errno_location(); }

/* The POSIX function, which returns a number; glibc's plain name is GNU's, which returns a text. */
int __xpg_strerror_r(int error, char* text, size_t size);
int bionic_strerror_r(int error, char* text, size_t size) __asm__("strerror_r");
int bionic_strerror_r(int error, char* text, size_t size) { return __xpg_strerror_r(error, text, size); }

size_t __strlen_chk(const char* text, size_t size) {
  (void)size;
  return strlen(text);
}

long sysconf(int name) {
  switch (name) {
    case 0x06:
      return GLIBC(sysconf)(_SC_CLK_TCK);
    case 0x27:
    case 0x28:
      return GLIBC(sysconf)(_SC_PAGESIZE);
    case 0x60:
      return GLIBC(sysconf)(_SC_NPROCESSORS_CONF);
    case 0x61:
      return GLIBC(sysconf)(_SC_NPROCESSORS_ONLN);
    case 0x62:
      return GLIBC(sysconf)(_SC_PHYS_PAGES);
    case 0x63:
      return GLIBC(sysconf)(_SC_AVPHYS_PAGES);
  }
  dprintf(STDERR_FILENO, "bionic.c: sysconf(0x%x) has no counterpart yet\n", (unsigned)name);
  abort();
}

/* --- Android's own: no properties, and a log that nobody reads --------------------------------------------------- */

int __system_property_get(const char* name, char* value) {
  (void)name;
  value[0] = '\0';
  return 0;
}

int __android_log_print(int priority, const char* tag, const char* format, ...) {
  (void)priority, (void)tag, (void)format;
  return 1;
}

int __android_log_vprint(int priority, const char* tag, const char* format, va_list values) {
  (void)priority, (void)tag, (void)format, (void)values;
  return 1;
}

int __android_log_write(int priority, const char* tag, const char* text) {
  (void)priority, (void)tag, (void)text;
  return 1;
}
