/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * The seal: SipHash-2-4 with 128 bits of output over every byte of a blob,
 * as specified by Aumasson and Bernstein. All inputs are whole 64-bit words.
 */
#ifndef WB_SEAL_H
#define WB_SEAL_H

#include "abi.h"

struct wb_sip {
	__u64 v0, v1, v2, v3;
};

static __always_inline __u64 wb_rotl(__u64 x, int n)
{
	return x << n | x >> (64 - n);
}

static __always_inline void wb_sip_round(struct wb_sip *s)
{
	s->v0 += s->v1;
	s->v1 = wb_rotl(s->v1, 13) ^ s->v0;
	s->v0 = wb_rotl(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = wb_rotl(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = wb_rotl(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = wb_rotl(s->v1, 17) ^ s->v2;
	s->v2 = wb_rotl(s->v2, 32);
}

static __always_inline void wb_sip_init(struct wb_sip *s, const struct wb_key *key)
{
	s->v0 = 0x736f6d6570736575ULL ^ key->k[0];
	s->v1 = 0x646f72616e646f6dULL ^ key->k[1] ^ 0xee;
	s->v2 = 0x6c7967656e657261ULL ^ key->k[0];
	s->v3 = 0x7465646279746573ULL ^ key->k[1];
}

static __always_inline void wb_sip_word(struct wb_sip *s, __u64 word)
{
	s->v3 ^= word;
	wb_sip_round(s);
	wb_sip_round(s);
	s->v0 ^= word;
}

static __always_inline void wb_sip_finish(struct wb_sip *s, __u32 size, struct wb_seal *seal)
{
	wb_sip_word(s, (__u64)size << 56);
	s->v2 ^= 0xee;
	for (int i = 0; i < 4; i++)
		wb_sip_round(s);
	seal->mac[0] = s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
	s->v1 ^= 0xdd;
	for (int i = 0; i < 4; i++)
		wb_sip_round(s);
	seal->mac[1] = s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

#endif /* WB_SEAL_H */
