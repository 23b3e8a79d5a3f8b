/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Records on a socket, and the sealed blob that carries them through a proxy. */
#ifndef WB_RECORDS_H
#define WB_RECORDS_H

#include "maps.h"
#include "seal.h"

#define WB_RECORDS_FIXED (sizeof(struct wb_records) - WB_MAX_HOPS * sizeof(struct wb_hop))
#define WB_RECORDS_WORDS (sizeof(struct wb_records) / 8)

static __always_inline bool wb_is_stamped(const struct wb_socket *s)
{
	return s->role == WB_CONNECTS && s->records.n_hops > s->carried;
}

/* Drop what the last connect() added. */
static __always_inline void wb_forget_stamp(struct wb_socket *s)
{
	s->records.n_hops = s->carried;
	s->flags &= ~(WB_HAS_CONTEXT | WB_BEHIND_TPROXY);
}

/*
 * A socket that is about to connect keeps the records that were set on it. One
 * that was accepted and disconnected starts anew: nobody has set anything.
 */
static __always_inline void wb_begin_connect(struct wb_socket *s)
{
	if (s->role == WB_ACCEPTED) {
		s->carried = 0;
		s->flags = 0;
	}
	s->role = WB_CONNECTS;
	wb_forget_stamp(s);
}

static __always_inline const struct wb_hop *wb_newest_hop(const struct wb_socket *s)
{
	return &s->records.hops[(s->records.n_hops - 1) & (WB_MAX_HOPS - 1)];
}

static __always_inline void wb_hop_dst(const struct wb_hop *hop, struct wb_endpoint *dst)
{
	__builtin_memcpy(dst->addr, hop->addr, sizeof(dst->addr));
	dst->port = hop->port;
	dst->protocol = hop->flags & WB_HOP_UDP ? IPPROTO_UDP : IPPROTO_TCP;
}

/* Whether the hop's connection wanted to go to dst. */
static __always_inline bool wb_hop_is_to(const struct wb_hop *hop, const struct wb_endpoint *dst)
{
	__u32 other = (hop->addr[0] ^ dst->addr[0]) | (hop->addr[1] ^ dst->addr[1]) | (hop->addr[2] ^ dst->addr[2]) |
		      (hop->addr[3] ^ dst->addr[3]) | (__u32)(hop->port ^ dst->port);

	return !(other | (!!(hop->flags & WB_HOP_UDP) ^ (dst->protocol == IPPROTO_UDP)));
}

/* Add a hop to the records. The decision has made sure that there is room; the verifier has not. */
static __always_inline void wb_add_hop(struct wb_records *r, const struct wb_provider *p, const struct wb_endpoint *dst,
				       __u16 flags)
{
	__u32 i = r->n_hops;
	struct wb_hop *hop;

	if (i >= WB_MAX_HOPS)
		return;
	hop = &r->hops[i];
	hop->handle = p->handle;
	hop->time = bpf_ktime_get_boot_ns();
	__builtin_memcpy(hop->addr, dst->addr, sizeof(hop->addr));
	hop->port = dst->port;
	hop->flags = flags | (dst->protocol == IPPROTO_UDP ? WB_HOP_UDP : 0);
	hop->weight = p->weight;
	r->n_hops = i + 1;
}

/* The number of a connection with these records in its flow. An implied hop is no connection of the flow's. */
static __always_inline __u32 wb_hop_number(const struct wb_records *r, __u32 n_hops)
{
	return n_hops ? n_hops - (r->hops[0].flags & WB_HOP_IMPLIED) : 0;
}

/* The size of the blob for these records; 0: they make none. */
static __always_inline __u32 wb_blob_size(__u32 n_hops)
{
	if (!n_hops || n_hops > WB_MAX_HOPS)
		return 0;
	return WB_RECORDS_FIXED + n_hops * sizeof(struct wb_hop) + sizeof(struct wb_seal);
}

static __always_inline struct wb_key *wb_seal_key(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&keys, &zero);
}

/* Write the blob for r, of wb_blob_size() bytes, to out. False: it does not fit. */
static __always_inline bool wb_write_blob(const struct wb_records *r, void *out, void *end)
{
	__u32 n_words = (wb_blob_size(r->n_hops) - sizeof(struct wb_seal)) / 8;
	const __u64 *words = (const __u64 *)r;
	struct wb_key *key = wb_seal_key();
	struct wb_seal seal;
	struct wb_sip sip;
	__u64 *to = out;

	if (!key)
		return false;
	wb_sip_init(&sip, key);
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < WB_RECORDS_WORDS; i++) {
		if (i >= n_words)
			break;
		if ((void *)(to + 1) > end)
			return false;
		*to++ = words[i];
		wb_sip_word(&sip, words[i]);
	}
	if ((void *)(to + 2) > end)
		return false;
	wb_sip_finish(&sip, n_words * 8, &seal);
	to[0] = seal.mac[0];
	to[1] = seal.mac[1];
	return true;
}

/* Whether the blob of `size` bytes at in has the shape of records: everything but its seal. */
static __always_inline bool wb_blob_is_well_formed(const void *in, const void *end, __u32 size)
{
	const struct wb_records *r = in;

	if (in + WB_RECORDS_FIXED > end)
		return false;
	return r->version == WB_RECORDS_VERSION && size && size == wb_blob_size(r->n_hops);
}

/* Whether the blob of `size` bytes was sealed with our key. */
static __always_inline bool wb_blob_is_sealed(const void *in, const void *end, __u32 size)
{
	__u32 n_words = (size - sizeof(struct wb_seal)) / 8;
	struct wb_key *key = wb_seal_key();
	const __u64 *from = in;
	struct wb_seal seal;
	struct wb_sip sip;

	if (!key)
		return false;
	wb_sip_init(&sip, key);
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < WB_RECORDS_WORDS; i++) {
		if (i >= n_words)
			break;
		if ((const void *)(from + 1) > end)
			return false;
		wb_sip_word(&sip, *from++);
	}
	if ((const void *)(from + 2) > end)
		return false;
	wb_sip_finish(&sip, n_words * 8, &seal);
	/* No early exit: the time taken must not tell how much of a guess was right. */
	return !((seal.mac[0] ^ from[0]) | (seal.mac[1] ^ from[1]));
}

/* Take the records out of a blob that has been checked. */
static __always_inline void wb_read_blob(struct wb_records *r, const void *in, const void *end, __u32 size)
{
	__u32 n_words = (size - sizeof(struct wb_seal)) / 8;
	__u64 *words = (__u64 *)r;
	const __u64 *from = in;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < WB_RECORDS_WORDS; i++) {
		if (i >= n_words || (const void *)(from + 1) > end)
			break;
		words[i] = *from++;
	}
}

#endif /* WB_RECORDS_H */
