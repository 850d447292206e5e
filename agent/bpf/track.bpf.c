// SPDX-License-Identifier: MIT OR GPL-2.0-only
//
// Marks every sector of one disk that may have changed, from the block layer's tracepoints.
//
// What is marked, when, and why nothing is lost is argued in agent/src/tracker/ebpf/mod.rs; where the words lie is
// agent/src/tracker/ebpf/geometry.rs. This file uses no kernel or libbpf header: the few structs are declared here and
// their fields found through the running kernel's BTF (CO-RE), so one object serves Linux 6.1 to 6.18.
//
// Built by the command that stands in agent/bpf/build.sh; the object beside it is what the agent embeds.

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

// ---- what the loader fills in ----

volatile const u64 disk_seq;      // the disk, by the number that no other disk of this boot has
volatile const u64 first;         // sector of the disk where the tracked range starts (a partition's start, or 0)
volatile const u64 sectors;       // length of the tracked range
volatile const u64 zone_sectors;  // length of a zone; 0 where the disk has none
volatile const u64 buffer_words;  // words in one of the two buffers
volatile const u64 leaf_sum_at;   // each section's first word within a buffer
volatile const u64 coarse_sum_at;
volatile const u64 coarse_at;
volatile const u64 keys_at;
volatile const u64 leaves_at;
volatile const u64 hash_bits;     // log2 of the leaf count; 0 = a leaf for each grain, no keys
volatile const u64 coarse_shift;  // a coarse bit covers 1 << coarse_shift grains
volatile const u64 flight_mask;   // buckets in the in-flight table, minus one

// ---- the maps ----

#define HEADER_WORDS 512
#define ACTIVE_WORD 0
#define FLAGS_WORD 8 // of buffer 0; buffer 1's is 8 words (a cache line) on

// Flags of a buffer. ALL marks the whole range; the others say that marks may be missing.
enum { ALL = 1, PASSTHROUGH = 2, UNKNOWN_BIO = 4, UNKNOWN_OP = 8, OUT_OF_RANGE = 16, LONG_CHAIN = 32 };

struct {
	int (*type)[2]; // BPF_MAP_TYPE_ARRAY
	int (*map_flags)[1024]; // BPF_F_MMAPABLE
	int (*max_entries)[1];
	u32 *key;
	u64 *value;
} area SEC(".maps");

// Bios of a bio-based disk between queue and completion. By its completion a bio's own sector and size have been used
// up, or moved to the disk below, so they are kept here, by the bio's address.
#define SLOTS 8
struct bucket {
	u64 bio[SLOTS];
	u64 range[SLOTS];
};
struct {
	int (*type)[2];
	int (*max_entries)[1];
	u32 *key;
	struct bucket *value;
} flight SEC(".maps");

// ---- marking ----

INLINE u64 *word(u64 index)
{
	u32 key = index;
	return map_lookup(&area, &key);
}

// Reading before the atomic keeps a line that many CPUs write again and again shared instead of bouncing.
INLINE int set_bits(u64 index, u64 bits)
{
	u64 *w = word(index);
	if (!w)
		return 0;
	if ((*(volatile u64 *)w & bits) != bits)
		__sync_fetch_and_or(w, bits);
	return 1;
}

INLINE u64 active(void)
{
	u64 *w = word(ACTIVE_WORD);
	return w ? *(volatile u64 *)w & 1 : 0;
}

INLINE void flag(u64 buffer, u64 bits)
{
	set_bits(FLAGS_WORD + 8 * buffer, bits);
}

INLINE u64 base_of(u64 buffer)
{
	return HEADER_WORDS + (buffer ? buffer_words : 0);
}

INLINE int set_with_summary(u64 section, u64 summary, u64 index, u64 bits, u64 group_shift)
{
	u64 group = index >> group_shift;
	return set_bits(section + index, bits) && set_bits(summary + (group >> 6), 1ULL << (group & 63));
}

INLINE int mark_coarse(u64 base, u64 grain)
{
	u64 bit = grain >> coarse_shift;
	return set_with_summary(base + coarse_at, base + coarse_sum_at, bit >> 6, 1ULL << (bit & 63), 6);
}

// The two words of a leaf lie side by side, and 64 leaves (128 words) share a bit of the summary.
INLINE int mark_leaf(u64 base, u64 slot, u64 low, u64 high)
{
	u64 at = slot * 2;
	if (low && !set_with_summary(base + leaves_at, base + leaf_sum_at, at, low, 7))
		return 0;
	if (high && !set_with_summary(base + leaves_at, base + leaf_sum_at, at + 1, high, 7))
		return 0;
	return 1;
}

// Finds or claims the leaf of `grain` on a disk with more grains than leaves. Sixteen neighbours share a stretch of the
// table; a full stretch sends a grain 16 slots on, up to 8 times. A key is never taken back while programs may run on
// this buffer, so two CPUs that look for one grain meet at the same slot.
int __attribute__((noinline)) mark_hashed(u64 base, u64 grain, u64 low, u64 high)
{
	u64 region = (grain >> 4) * 0x9E3779B97F4A7C15ULL >> (64 - hash_bits + 4);
	u64 slot = region << 4 | (grain & 15);
	u32 wanted = grain + 1;

	for (int probe = 0; probe < 8; probe++) {
		u64 *pair = word(base + keys_at + (slot >> 1));
		if (!pair)
			return 0;
		u32 *key = (u32 *)pair + (slot & 1);
		u32 found = *(volatile u32 *)key;
		if (!found) {
			found = __sync_val_compare_and_swap(key, 0, wanted);
			if (!found)
				found = wanted;
		}
		if (found == wanted)
			return mark_leaf(base, slot, low, high);
		slot = (slot + 16) & ((1ULL << hash_bits) - 1);
	}
	return mark_coarse(base, grain);
}

// Marks sectors [from, to) of one grain, 0 <= from < to <= 128.
INLINE int mark_in_grain(u64 base, u64 grain, u64 from, u64 to)
{
	u64 low = 0, high = 0;
	if (from < 64)
		low = (~0ULL << from) & (to >= 64 ? ~0ULL : (1ULL << to) - 1);
	if (to > 64)
		high = (from > 64 ? ~0ULL << (from - 64) : ~0ULL) & (to >= 128 ? ~0ULL : (1ULL << (to - 64)) - 1);
	if (hash_bits)
		return mark_hashed(base, grain, low, high);
	return mark_leaf(base, grain, low, high);
}

// Marks a range that holds whole grains or crosses a grain's end. A bio or request is 4 GiB at most (its size is a u32),
// so its whole grains lie in at most 1025 coarse words.
int __attribute__((noinline)) mark_wide(u64 buffer, u64 start, u64 end)
{
	u64 base = base_of(buffer);
	u64 whole = (start + 127) >> 7, whole_end = end >> 7;
	int ok = 1;

	if (start & 127)
		ok &= mark_in_grain(base, start >> 7, start & 127, 128);
	if (end & 127)
		ok &= mark_in_grain(base, whole_end, 0, end & 127);
	if (whole < whole_end) {
		u64 bit = whole >> coarse_shift, last = (whole_end - 1) >> coarse_shift;
		for (int i = 0; i < 1026 && bit <= last; i++) {
			u64 index = bit >> 6;
			u64 mask = ~0ULL << (bit & 63);
			if (index == last >> 6)
				mask &= ~0ULL >> (63 - (last & 63));
			if (!set_with_summary(base + coarse_at, base + coarse_sum_at, index, mask, 6))
				return 0;
			bit = (index + 1) << 6;
		}
		ok &= bit > last;
	}
	return ok;
}

// Marks sectors of the tracked range, already cut to it; not empty.
INLINE void mark(u64 start, u64 end)
{
	u64 buffer = active();
	int ok;

	if (start >> 7 == (end - 1) >> 7 && end - start < 128)
		ok = mark_in_grain(base_of(buffer), start >> 7, start & 127, ((end - 1) & 127) + 1);
	else
		ok = mark_wide(buffer, start, end);
	if (!ok)
		flag(buffer, OUT_OF_RANGE);
}

// A range within the tracked one in one word: start in the high 40 bits, length (2^23 at most) in the low 24.
// 0 = nothing of ours; EVERYTHING = the whole range, or what cannot be said more closely.
#define EVERYTHING (~0ULL)

INLINE u64 cut(u64 start, u64 length)
{
	u64 end = start + length, last = first + sectors;
	if (start < first)
		start = first;
	if (end > last)
		end = last;
	return start < end ? (start - first) << 24 | (end - start) : 0;
}

INLINE void mark_range(u64 range)
{
	if (range == EVERYTHING)
		flag(active(), ALL);
	else if (range)
		mark(range >> 24, (range >> 24) + (range & 0xffffff));
}

// ---- what an operation can change ----

INLINE int harmless(u32 op)
{
	return op == OP_READ || op == OP_FLUSH || op == OP_DRV_IN;
}

INLINE int has_own_range(u32 op)
{
	return op == OP_WRITE || op == OP_WRITE_ZEROES || op == OP_DISCARD || op == OP_SECURE_ERASE;
}

// Zone operations and what later kernels may bring. A zone operation names its zone's first sector and no length; an
// append lands somewhere in its zone. RESET_ALL names sector 0, so an operation on the first zone counts as all.
INLINE u64 special(u32 op, u64 sector)
{
	if (op == OP_DRV_OUT) {
		flag(active(), PASSTHROUGH);
		return 0;
	}
	if (!zone_sectors) {
		flag(active(), UNKNOWN_OP);
		return 0;
	}
	if (sector < zone_sectors)
		return EVERYTHING;
	return zone_sectors > 0xffffff ? EVERYTHING : cut(sector - sector % zone_sectors, zone_sectors);
}

// ---- disks with requests (virtio, NVMe, SCSI, loop) ----

// One request may discard many separate ranges, one for each of its bios; at most 256 (NVMe's limit).
int __attribute__((noinline)) mark_scalar(u64 sector, u64 bytes)
{
	mark_range(cut(sector, (bytes + 511) >> 9));
	return 0;
}

INLINE void on_request(struct request *rq, u32 bytes)
{
	if (rq->q->disk->diskseq != disk_seq)
		return;
	u32 op = rq->cmd_flags & 0xff;
	if (harmless(op))
		return;
	if (!has_own_range(op)) {
		mark_range(special(op, rq->__sector));
		return;
	}
	struct bio *bio = rq->bio;
	if ((op == OP_DISCARD || op == OP_SECURE_ERASE) && bio && bio->bi_next) {
		for (int i = 0; i < 256 && bio; i++) {
			mark_scalar(bio->bi_iter.bi_sector, bio->bi_iter.bi_size);
			bio = bio->bi_next;
		}
		if (bio)
			flag(active(), LONG_CHAIN);
	}
	mark_range(cut(rq->__sector, ((u64)bytes + 511) >> 9));
}

SEC("tp_btf/block_rq_issue") int rq_issue(u64 *ctx)
{
	struct request *rq = (void *)ctx[0];
	on_request(rq, rq->__data_len);
	return 0;
}

// A program is skipped on a CPU that is running it already, so the completion is attached three times over: see
// `copies` in agent/src/tracker/ebpf/mod.rs. Marking again is idempotent.
#define RQ_COMPLETE(name)                                                                                              \
	SEC("tp_btf/block_rq_complete") int name(u64 *ctx)                                                             \
	{                                                                                                              \
		on_request((void *)ctx[0], (u32)ctx[2]);                                                               \
		return 0;                                                                                              \
	}
RQ_COMPLETE(rq_complete_a)
RQ_COMPLETE(rq_complete_b)
RQ_COMPLETE(rq_complete_c)

// ---- disks without requests (device mapper, md, zram, pmem, NVMe multipath) ----

// A bio's address is a pointer to the verifier: it may be compared and stored, but calculated with only through its lower
// half, which is plenty for a hash.
INLINE struct bucket *bucket_of(u64 bio)
{
	u32 low;
	asm volatile("%0 = %1" : "=w"(low) : "w"((u32)bio)); // the compiler would shift the pointer
	u32 key = ((u64)(low >> 6) * 0x9E3779B97F4A7C15ULL >> 32) & flight_mask;
	return map_lookup(&flight, &key);
}

// What cannot be remembered is not lost: its completion then finds no entry, and settles it by itself.
INLINE void remember(u64 bio, u64 range)
{
	struct bucket *b = bucket_of(bio);
	if (!b)
		return;
	for (int i = 0; i < SLOTS; i++) {
		u64 *slot = &b->bio[i];
		u64 found = *(volatile u64 *)slot;
		if (!found)
			found = __sync_val_compare_and_swap(slot, 0, bio);
		if (!found || found == bio) {
			*(volatile u64 *)&b->range[i] = range;
			return;
		}
	}
}

SEC("tp_btf/block_bio_queue") int bio_queue(u64 *ctx)
{
	struct bio *bio = (void *)ctx[0];
	if (bio->bi_bdev->bd_disk->diskseq != disk_seq)
		return 0;
	u32 op = bio->bi_opf & 0xff;
	if (harmless(op))
		return 0;
	u64 sector = bio->bi_iter.bi_sector;
	u64 range = has_own_range(op) ? cut(sector, ((u64)bio->bi_iter.bi_size + 511) >> 9) : special(op, sector);
	// A bio of none of our sectors is remembered too, as nothing, so that its completion is not taken for an unknown.
	remember((u64)bio, range);
	mark_range(range);
	return 0;
}

// Ends a bio that was not remembered: it was queued before we were attached, or its queueing was skipped, or the table
// was full, or it is a piece split from another bio. What is sure at a completion, however far the bio was used up, is
// where it ends; a bio that is no clone also knows its first length, by its pages.
INLINE void unknown_completion(struct bio *bio)
{
	if (bio->bi_bdev->bd_disk->diskseq != disk_seq)
		return;
	u32 op = bio->bi_opf & 0xff;
	if (harmless(op))
		return;
	if (bio->bi_flags & BIO_CLONED) {
		// A piece of a bio that we know: that one ends after its pieces, and is marked then.
		u64 parent = (u64)bio->bi_private;
		struct bucket *b = bucket_of(parent);
		for (int i = 0; b && i < SLOTS; i++)
			if (*(volatile u64 *)&b->bio[i] == parent)
				return;
	} else if (op == OP_WRITE && bio->bi_vcnt) {
		u64 bytes = 0, count = bio->bi_vcnt;
		u8 *at = (u8 *)bio->bi_io_vec;
		for (int i = 0; i < 256 && i < count; i++) {
			struct bio_vec *vec = (struct bio_vec *)at;
			u32 length = 0;
			probe_read_kernel(&length, sizeof(length), &vec->bv_len);
			bytes += length;
			at += __builtin_preserve_type_info(*vec, 1);
		}
		u64 end = bio->bi_iter.bi_sector + (bio->bi_iter.bi_size >> 9), length = (bytes + 511) >> 9;
		if (count <= 256 && length <= end) {
			mark_range(cut(end - length, length));
			return;
		}
	}
	flag(active(), UNKNOWN_BIO);
}

INLINE void on_bio_complete(struct bio *bio, int last)
{
	u64 address = (u64)bio;
	struct bucket *b = bucket_of(address);
	if (!b)
		return;
	for (int i = 0; i < SLOTS; i++) {
		u64 *slot = &b->bio[i];
		if (*(volatile u64 *)slot == address) {
			mark_range(*(volatile u64 *)&b->range[i]);
			if (last)
				*(volatile u64 *)slot = 0;
			return;
		}
	}
	unknown_completion(bio);
}

#define BIO_COMPLETE(name, last)                                                                                       \
	SEC("tp_btf/block_bio_complete") int name(u64 *ctx)                                                            \
	{                                                                                                              \
		on_bio_complete((void *)ctx[1], last);                                                                 \
		return 0;                                                                                              \
	}
BIO_COMPLETE(bio_complete_a, 0)
BIO_COMPLETE(bio_complete_b, 0)
BIO_COMPLETE(bio_complete_c, 1)

char _license[] SEC("license") = "Dual MIT/GPL";
