// SPDX-License-Identifier: MIT OR GPL-2.0-only
//
// Marks every sector of one disk that may have changed, from the block layer's tracepoints.
//
// What is marked, when, and why nothing is lost is argued in agent/src/tracker/ebpf/mod.rs; where the words lie is
// agent/src/tracker/ebpf/geometry.rs. No kernel or libbpf header is used, so one object serves Linux 6.1 to 6.18.
//
// Built by the command that stands in agent/bpf/build.sh; the object beside it is what the agent embeds.

#include "kernel.h"

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
#define INTERVAL_WORD 0 // the running interval's number; its lowest bit is the buffer that takes marks
#define FLAGS_WORD 8 // of buffer 0; buffer 1's is 8 words (a cache line) on
#define FORGOTTEN_WORD 24 // starts that found no room in the table

// Flags of a buffer. ALL marks the whole range; the others say that marks may be missing.
enum { ALL = 1, PASSTHROUGH = 2, UNKNOWN_BIO = 4, UNKNOWN_OP = 8, OUT_OF_RANGE = 16, LONG_CHAIN = 32 };

struct {
	int (*type)[2]; // BPF_MAP_TYPE_ARRAY
	int (*map_flags)[1024]; // BPF_F_MMAPABLE
	int (*max_entries)[1];
	u32 *key;
	u64 *value;
} area SEC(".maps");

// What has started and not ended: requests, or bios where the disk takes those, by their address. It says where a bio
// was, which its completion no longer does: by then its own sector and size are used up, or moved to the disk below. And
// it is what makes up for an end that the kernel skipped: whatever is still in here at a swap counts as marked.
#define SLOTS 5
struct started {
	u64 address;
	u64 range;
	u64 interval; // the interval that its start was marked in
};
struct bucket {
	struct started slot[SLOTS];
	u64 unused;
};
struct {
	int (*type)[2];
	int (*map_flags)[1024];
	int (*max_entries)[2];
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

INLINE u64 interval_now(void)
{
	u64 *w = word(INTERVAL_WORD);
	return w ? *(volatile u64 *)w : 0;
}

INLINE void flag(u64 interval, u64 bits)
{
	set_bits(FLAGS_WORD + 8 * (interval & 1), bits);
}

INLINE u64 base_of(u64 interval)
{
	return HEADER_WORDS + (interval & 1 ? buffer_words : 0);
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

// Functions of their own, as the verifier follows each once instead of in every round of the loops, whose rounds it walks
// through one by one: 33 and 33 instead of a thousand.
int __attribute__((noinline)) mark_coarse_word(u64 base, u64 index, u64 mask)
{
	return set_with_summary(base + coarse_at, base + coarse_sum_at, index, mask, 6);
}

// Marks coarse bits from `bit` to `last`, in at most 33 words. The answer is the bit to go on with, which is 0 for a word
// outside of the buffer.
u64 __attribute__((noinline)) mark_coarse_words(u64 base, u64 bit, u64 last)
{
	for (int i = 0; i < 33 && bit <= last; i++) {
		u64 index = bit >> 6;
		u64 mask = ~0ULL << (bit & 63);
		if (index == last >> 6)
			mask &= ~0ULL >> (63 - (last & 63));
		if (!mark_coarse_word(base, index, mask))
			return 0;
		bit = (index + 1) << 6;
	}
	return bit;
}

// Marks a range that holds whole grains or crosses a grain's end. A bio or request is 4 GiB at most (its size is a u32),
// so its whole grains lie in at most 1025 coarse words.
int __attribute__((noinline)) mark_wide(u64 interval, u64 start, u64 end)
{
	u64 base = base_of(interval);
	u64 whole = (start + 127) >> 7, whole_end = end >> 7;
	int ok = 1;

	if (start & 127)
		ok &= mark_in_grain(base, start >> 7, start & 127, 128);
	if (end & 127)
		ok &= mark_in_grain(base, whole_end, 0, end & 127);
	if (whole < whole_end) {
		u64 bit = whole >> coarse_shift, last = (whole_end - 1) >> coarse_shift;
		for (int i = 0; i < 33 && bit <= last; i++) {
			bit = mark_coarse_words(base, bit, last);
			if (!bit)
				return 0;
		}
		ok &= bit > last;
	}
	return ok;
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

u64 __attribute__((noinline)) cut_again(u64 sector, u64 bytes)
{
	return cut(sector, (bytes + 511) >> 9);
}

INLINE void mark(u64 interval, u64 range)
{
	u64 start = range >> 24, end = start + (range & 0xffffff);
	int ok = 1;

	if (!range)
		return;
	if (range == EVERYTHING)
		flag(interval, ALL);
	else if (start >> 7 == (end - 1) >> 7 && end - start < 128)
		ok = mark_in_grain(base_of(interval), start >> 7, start & 127, ((end - 1) & 127) + 1);
	else
		ok = mark_wide(interval, start, end);
	if (!ok)
		flag(interval, OUT_OF_RANGE);
}

// The same where speed does not count: code that is checked and stored once.
int __attribute__((noinline)) mark_again(u64 interval, u64 range)
{
	mark(interval, range);
	return 0;
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
INLINE u64 special(u64 interval, u32 op, u64 sector)
{
	if (op == OP_DRV_OUT || !zone_sectors) {
		flag(interval, op == OP_DRV_OUT ? PASSTHROUGH : UNKNOWN_OP);
		return 0;
	}
	if (sector < zone_sectors)
		return EVERYTHING;
	return zone_sectors > 0xffffff ? EVERYTHING : cut(sector - sector % zone_sectors, zone_sectors);
}

// ---- what has started and not ended ----

// An address is a pointer to the verifier: it may be compared and stored, but calculated with only through its lower
// half, which is plenty for a hash.
INLINE u32 hash_of(u64 address)
{
	u32 low;
	asm volatile("%0 = %1" : "=w"(low) : "w"((u32)address)); // the compiler would shift the pointer
	return ((u64)(low >> 6) * 0x9E3779B97F4A7C15ULL >> 32) & flight_mask;
}

// An address has its place in one of two neighbouring buckets.
INLINE struct started *find(u64 address, u32 hash)
{
	for (u32 choice = 0; choice < 2; choice++) {
		u32 key = hash ^ choice;
		struct bucket *b = map_lookup(&flight, &key);
		for (int i = 0; b && i < SLOTS; i++)
			if (*(volatile u64 *)&b->slot[i].address == address)
				return &b->slot[i];
	}
	return NULL;
}

INLINE int take(struct bucket *b, u64 address, u64 range, u64 interval)
{
	for (int i = 0; b && i < SLOTS; i++) {
		struct started *s = &b->slot[i];
		u64 found = *(volatile u64 *)&s->address;
		if (!found)
			found = __sync_val_compare_and_swap(&s->address, 0, address);
		if (!found) {
			*(volatile u64 *)&s->range = range;
			*(volatile u64 *)&s->interval = interval;
			return 1;
		}
	}
	return 0;
}

// Remembers what starts until its end.
INLINE void start(u64 address, u64 range, u64 interval)
{
	u32 hash = hash_of(address);
	struct started *s = find(address, hash);
	if (s) {
		// Its address is used again, so what had it has ended, and the kernel skipped that end.
		mark_again(interval, *(volatile u64 *)&s->range);
		*(volatile u64 *)&s->range = range;
		*(volatile u64 *)&s->interval = interval;
	} else {
		u32 other = hash ^ 1;
		if (!take(map_lookup(&flight, &hash), address, range, interval) &&
		    !take(map_lookup(&flight, &other), address, range, interval)) {
			u64 *forgotten = word(FORGOTTEN_WORD);
			if (forgotten)
				__sync_fetch_and_add(forgotten, 1);
		}
	}
}

// ---- disks with requests (virtio, NVMe, SCSI, loop) ----

// The range that both ranges lie in.
u64 __attribute__((noinline)) hull(u64 a, u64 b)
{
	u64 from = a >> 24, to = from + (a & 0xffffff), other = b >> 24, other_end = other + (b & 0xffffff);
	if (!a || !b)
		return a | b;
	if (other < from)
		from = other;
	if (other_end > to)
		to = other_end;
	return a == EVERYTHING || to - from > 0xffffff ? EVERYTHING : from << 24 | (to - from);
}

// One request may discard many separate ranges, one for each of its bios; at most 256 (NVMe's limit). All are marked; the
// answer is the range that they lie in, for the table.
INLINE u64 mark_chain(u64 interval, struct bio *bio)
{
	u64 all = 0;
	for (int i = 0; i < 256 && bio; i++) {
		u64 range = cut_again(bio->bi_iter.bi_sector, bio->bi_iter.bi_size);
		mark_again(interval, range);
		all = hull(all, range);
		bio = bio->bi_next;
	}
	if (bio)
		flag(interval, LONG_CHAIN);
	return all;
}

INLINE int is_ours(struct request *rq, u32 op)
{
	return rq->q->disk->diskseq == disk_seq && !harmless(op);
}

INLINE int is_chain(struct request *rq, u32 op)
{
	struct bio *bio = rq->bio;
	return (op == OP_DISCARD || op == OP_SECURE_ERASE) && bio && bio->bi_next;
}

INLINE u64 range_of(struct request *rq, u32 op, u32 bytes, u64 interval)
{
	return has_own_range(op) ? cut(rq->__sector, ((u64)bytes + 511) >> 9) : special(interval, op, rq->__sector);
}

SEC("tp_btf/block_rq_issue") int rq_issue(u64 *ctx)
{
	struct request *rq = (void *)ctx[0];
	u32 op = rq->cmd_flags & 0xff;
	if (!is_ours(rq, op))
		return 0;
	u64 interval = interval_now(), range;
	if (is_chain(rq, op)) {
		range = mark_chain(interval, rq->bio);
	} else {
		range = range_of(rq, op, rq->__data_len, interval);
		mark(interval, range);
	}
	start((u64)rq, range, interval);
	return 0;
}

// Unlike a bio, a request knows at its end where it is, so the table only tells what needs no second mark: what it
// agrees with, from this same interval. Where it does not agree, it speaks of a piece-wise end, or of an earlier request
// of the same address whose end was skipped, as this one's start was.
SEC("tp_btf/block_rq_complete") int rq_complete(u64 *ctx)
{
	struct request *rq = (void *)ctx[0];
	u32 bytes = ctx[2], op = rq->cmd_flags & 0xff;
	if (!is_ours(rq, op))
		return 0;
	u64 interval = interval_now();
	int chain = is_chain(rq, op);
	u64 range = chain ? mark_chain(interval, rq->bio) : range_of(rq, op, bytes, interval);
	struct started *s = find((u64)rq, hash_of((u64)rq));
	u64 known = s ? *(volatile u64 *)&s->range : 0;
	if (!chain && (!s || known != range || *(volatile u64 *)&s->interval != interval))
		mark(interval, range);
	if (s && known != range)
		mark_again(interval, known);
	if (s && bytes >= rq->__data_len)
		*(volatile u64 *)&s->address = 0;
	return 0;
}

// ---- disks without requests (device mapper, md, zram, pmem, NVMe multipath) ----

SEC("tp_btf/block_bio_queue") int bio_queue(u64 *ctx)
{
	struct bio *bio = (void *)ctx[0];
	u32 op = bio->bi_opf & 0xff;
	if (bio->bi_bdev->bd_disk->diskseq != disk_seq || harmless(op))
		return 0;
	u64 interval = interval_now(), sector = bio->bi_iter.bi_sector;
	u64 range = has_own_range(op) ? cut(sector, ((u64)bio->bi_iter.bi_size + 511) >> 9)
				      : special(interval, op, sector);
	// A bio of none of our sectors is remembered too, as nothing, so that its end is not taken for an unknown.
	mark(interval, range);
	start((u64)bio, range, interval);
	return 0;
}

// Ends a bio that was not remembered: it started before we were attached, or its start was skipped, or found no room, or
// it is a piece split from another bio. What is sure at an end, however far the bio was used up, is where it ends; a bio
// that is no clone also knows its first length, by its pages.
INLINE void settle_unknown(struct bio *bio)
{
	u32 op = bio->bi_opf & 0xff;
	if (bio->bi_bdev->bd_disk->diskseq != disk_seq || harmless(op))
		return;
	u64 interval = interval_now();
	if (bio->bi_flags & BIO_CLONED) {
		// A piece of a bio that we know: that one ends after its pieces, and is marked then.
		u64 parent = (u64)bio->bi_private;
		if (find(parent, hash_of(parent)))
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
		u64 last = bio->bi_iter.bi_sector + (bio->bi_iter.bi_size >> 9), length = (bytes + 511) >> 9;
		if (count <= 256 && length <= last) {
			mark_again(interval, cut(last - length, length));
			return;
		}
	}
	flag(interval, UNKNOWN_BIO);
}

SEC("tp_btf/block_bio_complete") int bio_complete(u64 *ctx)
{
	struct bio *bio = (void *)ctx[1];
	// Looked up before its disk is asked for: it may end on the disk below.
	struct started *s = find((u64)bio, hash_of((u64)bio));
	if (!s) {
		settle_unknown(bio);
		return 0;
	}
	// What started in this same interval is marked already.
	u64 interval = interval_now();
	if (*(volatile u64 *)&s->interval != interval)
		mark(interval, *(volatile u64 *)&s->range);
	*(volatile u64 *)&s->address = 0;
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
