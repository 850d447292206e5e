#!/bin/sh
# Builds track.bpf.o from track.bpf.c: `build.sh [OUTPUT]`. Needs clang-14 and llvm-14. The same source gives the same
# bytes on any machine: no path goes into the object, and DWARF is taken off (BTF, which the loader needs, stays).
set -eu
cd "$(dirname "$0")"
out=${1:-track.bpf.o}
clang-14 -O2 -g -target bpf -mcpu=v3 -Wall -Werror -ffile-prefix-map="$PWD"=. -fdebug-compilation-dir=. \
	-c track.bpf.c -o "$out"
llvm-strip-14 -g "$out"
