#!/bin/sh
# Installs the Debian packages that the phone tests use and that are missing. Without root it prints the command.
#   --check   installs nothing: says what is missing and what it would enable
set -eu

missing='' enables=''
while read -r package mark purpose; do
  if [ ! -e "$mark" ] && ! command -v "$mark" > /dev/null; then
    missing="$missing $package"
    enables="$enables
  $package: $purpose"
  fi
  # package, a program or file by which it is known, what needs it
done << 'END'
adb                    adb                                     the connection through the real adb client and server
mksh                   mksh                                    the phone's commands in Android's own shell
toybox                 toybox                                  the phone's commands with Android's own tools
gcc                    gcc                                     amc_bench, built for this computer
libc6-dev              /usr/include/stdio.h                    amc_bench, built for this computer
cmake                  cmake                                   amc_bench, built by its CMake file
ninja-build            ninja                                   amc_bench, built by its CMake file
qemu-user-static       qemu-aarch64-static                     the genuine Android benchmark_model, emulated
gcc-aarch64-linux-gnu  aarch64-linux-gnu-gcc                   the genuine Android benchmark_model, emulated
libc6-dev-arm64-cross  /usr/aarch64-linux-gnu/include/stdio.h  the genuine Android benchmark_model, emulated
END

if [ -z "$missing" ]; then
  echo "phone tests: all Debian packages are here"
  exit 0
fi

install="apt-get install -y --no-install-recommends$missing"
if [ "${1-}" = --check ]; then
  echo "phone tests: without these Debian packages some are skipped:$enables"
  echo "to install them: sudo $install"
elif [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
  echo "phone tests: this needs root and apt-get: $install" >&2
  exit 1
else
  # An outdated list of packages may still do.
  apt-get update || echo "phone tests: apt-get update failed" >&2
  DEBIAN_FRONTEND=noninteractive $install
fi
