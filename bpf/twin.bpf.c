// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/* For tests: runs the pure parts of the kernel side on input from a map, many cases a call. */
#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "policy.h"
#include "seal.h"

#define WB_CASES 4096

char LICENSE[] SEC("license") = "Dual MIT/GPL";

struct wb_case {
	struct wb_query query;
	struct wb_hop hops[WB_MAX_HOPS];
	struct wb_decision decision;
};

struct wb_seal_input {
	struct wb_key key;
	__u64 words[64];
	__u32 n_words;
	__u32 reserved;
	struct wb_seal seal;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WB_CASES);
	__type(key, __u32);
	__type(value, struct wb_case);
} cases SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wb_seal_input);
} seal_cases SEC(".maps");

static long wb_decide_case(__u32 i, void *unused)
{
	const struct wb_policy *policy = wb_active_policy();
	struct wb_case *c = bpf_map_lookup_elem(&cases, &i);
	struct wb_query query;

	if (!c || !policy)
		return 1;
	query = c->query;
	wb_resolve_any(&query.dst);
	wb_decide(policy, &query, &c->hops, &c->decision);
	return 0;
}

SEC("socket")
int wb_decide_cases(struct __sk_buff *ctx)
{
	bpf_loop(WB_CASES, wb_decide_case, NULL, 0);
	return 0;
}

SEC("socket")
int wb_seal_case(struct __sk_buff *ctx)
{
	__u32 zero = 0;
	struct wb_seal_input *c = bpf_map_lookup_elem(&seal_cases, &zero);
	struct wb_sip sip;

	if (!c)
		return 0;
	wb_sip_init(&sip, &c->key);
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < 64; i++) {
		if (i >= c->n_words)
			break;
		wb_sip_word(&sip, c->words[i]);
	}
	wb_sip_finish(&sip, c->n_words * 8, &c->seal);
	return 0;
}

/* Only pointers to it are used here, and BTF would leave it a forward declaration. */
struct wb_policy *wb_exports __attribute__((unused));
