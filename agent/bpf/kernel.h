// SPDX-License-Identifier: MIT OR GPL-2.0-only
//
// What track.bpf.c needs of the kernel: helpers by number, and of its structs only the fields that are read. Where a field
// lies is found through the running kernel's BTF when the programs are loaded.

#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define CORE __attribute__((preserve_access_index))
#define NULL ((void *)0)

// The kernel's helpers, by number (linux/bpf.h).
static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const probe_read_kernel)(void *to, u32 bytes, const void *from) = (void *)113;

// ---- the kernel's structs: only what is read here ----

struct gendisk {
	u64 diskseq;
} CORE;
struct block_device {
	struct gendisk *bd_disk;
} CORE;
struct request_queue {
	struct gendisk *disk;
} CORE;
struct bvec_iter {
	u64 bi_sector;
	u32 bi_size;
} CORE;
struct bio_vec {
	u32 bv_len;
} CORE;
struct bio {
	struct bio *bi_next;
	struct block_device *bi_bdev;
	u32 bi_opf;
	u16 bi_flags;
	struct bvec_iter bi_iter;
	void *bi_private;
	u16 bi_vcnt;
	struct bio_vec *bi_io_vec;
} CORE;
struct request {
	struct request_queue *q;
	u32 cmd_flags;
	u32 __data_len;
	u64 __sector;
	struct bio *bio;
} CORE;

// Operations whose numbers have not moved since 6.1. Zone operations have (ZONE_APPEND was 13 and is 7): they are
// "everything else", so that no list of numbers has to be complete.
enum { OP_READ = 0, OP_WRITE = 1, OP_FLUSH = 2, OP_DISCARD = 3, OP_SECURE_ERASE = 5, OP_WRITE_ZEROES = 9 };
enum { OP_DRV_IN = 34, OP_DRV_OUT = 35 };
enum { BIO_CLONED = 1 << 1 };
