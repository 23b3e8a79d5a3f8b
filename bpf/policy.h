/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * The decision: which provider, if any, gets a connection, and which filter
 * forbids it. It reads nothing but its arguments and the classes of the
 * policy, so that a test can ask it on its own; its Go twin is
 * internal/policy/decide.go, and the two are compared on random input.
 */
#ifndef WB_POLICY_H
#define WB_POLICY_H

#include "maps.h"

struct wb_scan {
	const struct wb_policy *policy;
	const struct wb_query *query;
	const struct wb_hop *hops;
	struct wb_decision *decision;
	const struct wb_set *sets[WB_DIMENSIONS];
	__u64 pending;   /* words yet to look at, of one word of the summary */
	__u16 summary;   /* the number of that word */
	__u16 state;     /* only filters for this one */
	__u16 from, end; /* only filters in this range */
	__u16 found;
	__u16 next; /* where wb_visit() goes on */
	__u32 reserved;
};

static __always_inline bool wb_is_mapped(const __be32 *addr)
{
	return !(addr[0] | addr[1] | (addr[2] ^ bpf_htonl(0xffff))); /* one test, not three: see wb_state() */
}

/* The kernel takes a connect() to 0.0.0.0 or :: for one to loopback; so do the filters. */
static __always_inline void wb_resolve_any(struct wb_endpoint *dst)
{
	if (wb_is_mapped(dst->addr) && dst->addr[3] == 0)
		dst->addr[3] = bpf_htonl(0x7f000001);
	else if (!(dst->addr[0] | dst->addr[1] | dst->addr[2] | dst->addr[3]))
		dst->addr[3] = bpf_htonl(1);
}

static __always_inline bool wb_same_endpoint(const struct wb_endpoint *a, const struct wb_endpoint *b)
{
	return a->port == b->port && a->addr[3] == b->addr[3] && a->addr[2] == b->addr[2] && a->addr[1] == b->addr[1] &&
	       a->addr[0] == b->addr[0];
}

static __always_inline __u32 wb_equal(__u64 a, __u64 b)
{
	__u64 x = a ^ b;

	return ~(x | -x) >> 63;
}

static __always_inline __u32 wb_at_least(__s32 a, __s32 b)
{
	return ~(__u64)((__s64)a - b) >> 63;
}

/*
 * The state of a connection with these records for provider p. Sets of hops
 * are bit masks, computed without a branch: eight hops with a branch or two
 * each would be thousands of paths for the verifier to walk.
 */
static __always_inline enum waybill_state wb_state(const struct wb_provider *p, const struct wb_hop *hops, __u32 n_hops)
{
	__u32 own = 0, covered = 0, all = (1U << (n_hops & 31)) - 1;

	if (!n_hops || !hops)
		return WAYBILL_NOT_REDIRECTED;
	for (__u32 i = 0; i < WB_MAX_HOPS; i++) {
		own |= wb_equal(hops[i].handle, p->handle) << i;
		covered |= (hops[i].flags & WB_HOP_IMPLIED & wb_at_least(p->weight, hops[i].weight)) << i;
	}
	if (own & all & ~(all >> 1))
		return WAYBILL_REDIRECTED_BY_SELF;
	if ((own | covered) & all)
		return WAYBILL_PREVIOUSLY_REDIRECTED_BY_SELF;
	return WAYBILL_REDIRECTED_BY_OTHER;
}

/*
 * The state of a connection without records that a proxy's process opens. It
 * counts as redirected by this provider and by all that stand before it, so
 * that order alone rules out a loop even if no proxy ever passes records on.
 */
static __always_inline enum waybill_state wb_implied_state(const struct wb_policy *policy, const struct wb_provider *p,
							   __u32 index, __u32 self)
{
	if (index == self)
		return WAYBILL_REDIRECTED_BY_SELF;
	if (policy->flags & WB_TRACKING_OFF)
		return WAYBILL_NOT_REDIRECTED;
	if (p->weight >= policy->providers[self & (WB_MAX_PROVIDERS - 1)].weight)
		return WAYBILL_PREVIOUSLY_REDIRECTED_BY_SELF;
	return WAYBILL_REDIRECTED_BY_OTHER;
}

/* 1 or 0, without a branch, which clang would rather have. */
static __always_inline __u32 wb_nonzero(__u64 x)
{
	x |= -x;
	asm volatile("" : "+r"(x));
	return x >> 63;
}

/* The lowest bit of x, which is not 0: BPF has no such instruction. Six branches would be 64 paths. */
static __always_inline __u32 wb_lowest_bit(__u64 x)
{
	x &= -x;
	return wb_nonzero(x & 0xaaaaaaaaaaaaaaaaULL) | wb_nonzero(x & 0xccccccccccccccccULL) << 1 |
	       wb_nonzero(x & 0xf0f0f0f0f0f0f0f0ULL) << 2 | wb_nonzero(x & 0xff00ff00ff00ff00ULL) << 3 |
	       wb_nonzero(x & 0xffff0000ffff0000ULL) << 4 | wb_nonzero(x & 0xffffffff00000000ULL) << 5;
}

static __always_inline const struct wb_set *wb_state_set(const struct wb_scan *s)
{
	return &s->policy->states[s->state & (WB_STATE_SETS - 1)];
}

/*
 * Keeps clang from testing one copy of an index and using another: the
 * verifier learns its bound from the test.
 */
#define wb_keep_bound(index) asm volatile("" : "+r"(index))

/* Where a provider's proxy takes what goes to dst. */
static __always_inline const struct wb_endpoint *wb_proxy_for(const struct wb_provider *p,
							      const struct wb_endpoint *dst)
{
	__u32 is_ipv6 = wb_nonzero(dst->addr[0] | dst->addr[1] | (dst->addr[2] ^ bpf_htonl(0xffff)));
	__u32 i = wb_equal(dst->protocol, IPPROTO_UDP) << 1 | is_ipv6;

	wb_keep_bound(i);
	return &p->proxies[i & (WB_PROXIES - 1)];
}

/* The provider with this index, which is one. Its bound is to be seen by old verifiers, too. */
static __always_inline const struct wb_provider *wb_provider_at(const struct wb_policy *policy, __u32 index)
{
	wb_keep_bound(index);
	return &policy->providers[index & (WB_MAX_PROVIDERS - 1)];
}

/*
 * Makes a constant into a number that the verifier knows nothing of. It would
 * walk the loops here once for each value that it can tell from the others.
 */
static __always_inline __u32 wb_hide(const struct wb_scan *s, __u32 value)
{
	return value + s->policy->zero;
}

/* Which words may have a filter in all sets, of 64 from i * 64 on. */
static __always_inline __u64 wb_summary(const struct wb_scan *s, __u32 i)
{
	__u64 common;

	wb_keep_bound(i);
	if (i >= WB_SUMMARY_WORDS)
		return 0;
	common = wb_state_set(s)->summary[i];
	for (int d = 0; d < WB_DIMENSIONS; d++)
		common &= s->sets[d]->summary[i];
	return common;
}

/* The filters 64 * i … 64 * i + 63 that are in all sets. */
static __always_inline __u64 wb_common(const struct wb_scan *s, __u32 i)
{
	__u64 common;

	wb_keep_bound(i);
	if (i >= WB_SET_WORDS)
		return 0;
	common = wb_state_set(s)->words[i];
	for (int d = 0; d < WB_DIMENSIONS; d++)
		common &= s->sets[d]->words[i];
	return common;
}

static long wb_scan_word(__u32 unused, struct wb_scan *s)
{
	__u64 common;
	__u32 word;

	if (!s->pending) {
		s->summary = wb_hide(s, s->summary + 1);
		if (s->summary >= WB_SUMMARY_WORDS || s->summary * 64 * 64 >= s->end)
			return 1;
		s->pending = wb_summary(s, s->summary);
		return 0;
	}
	word = s->summary * 64 + wb_lowest_bit(s->pending);
	if (word * 64 >= s->end)
		return 1;
	s->pending &= s->pending - 1;
	common = wb_common(s, word);
	if (word == s->from / 64)
		common &= ~0ULL << (s->from & 63);
	if (!common)
		return 0;
	s->found = word * 64 + wb_lowest_bit(common);
	return 1;
}

/* The first filter that matches, from `from` on; `end` or more: there is none. */
static __noinline __u32 wb_match(struct wb_scan *s, __u32 state, __u32 from, __u32 end)
{
	s->state = wb_hide(s, state);
	s->from = from;
	s->end = end;
	s->found = end;
	s->summary = from / 64 / 64;
	s->pending = wb_summary(s, s->summary) & ~0ULL << (from / 64 & 63);
	bpf_loop(WB_SET_WORDS + WB_SUMMARY_WORDS, wb_scan_word, s, 0);
	return s->found;
}

static __noinline enum waybill_state wb_provider_state(const struct wb_scan *s, const struct wb_provider *p, __u32 i)
{
	if (!s->query->n_hops && s->query->self >= 0)
		return wb_implied_state(s->policy, p, i, s->query->self);
	return wb_state(p, s->hops, s->query->n_hops);
}

/* Go on to the next provider with a filter that matches. 1: the walk ends. */
static long wb_visit(__u32 round, struct wb_scan *s)
{
	__u32 layer = s->query->layer & 1;
	struct wb_decision *d = s->decision;
	const struct wb_provider *p;
	const struct wb_filter *f;
	enum waybill_state state;
	__u32 index, owner;
	__u64 bit;

	index = wb_match(s, WB_ANY_STATE, s->next, s->policy->end[layer]);
	wb_keep_bound(index);
	if (index >= s->policy->end[layer] || index >= WB_MAX_FILTERS)
		return 1;
	f = &s->policy->filters[index];
	owner = f->provider & (WB_MAX_PROVIDERS - 1);
	p = &s->policy->providers[owner];
	bit = 1ULL << owner;
	s->next = p->end[layer];

	state = wb_hide(s, wb_provider_state(s, p, owner));
	if (!(f->states >> state & 1)) {
		index = wb_match(s, state, index + 1, p->end[layer]);
		wb_keep_bound(index);
		if (index >= p->end[layer] || index >= WB_MAX_FILTERS) {
			d->excluded |= bit;
			return 0;
		}
		f = &s->policy->filters[index];
	}
	if (f->action == WB_ACTION_PERMIT)
		return 0;
	if (p->flags & WB_SHADOW) {
		d->shadowed |= bit;
		return 0;
	}
	if (layer == WB_LAYER_AUTHORIZE) {
		d->verdict = WB_FORBID;
	} else if (!(s->query->down & bit)) {
		d->verdict = s->query->n_hops >= WB_MAX_HOPS ? WB_LOOP : WB_REDIRECT;
	} else if (p->on_down == WB_BLOCK) {
		d->verdict = WB_REFUSE;
	} else {
		d->bypassed |= bit;
		return 0;
	}
	d->provider = owner;
	d->filter = index;
	d->state = state;
	return 1;
}

static long wb_scan_proxy(__u32 i, struct wb_scan *s)
{
	const struct wb_provider *p;

	if (i >= WB_MAX_PROVIDERS)
		return 1;
	p = &s->policy->providers[i];
	if (!wb_same_endpoint(wb_proxy_for(p, &s->query->dst), &s->query->dst))
		return 0;
	s->found = 1;
	return 1;
}

static __always_inline const struct wb_set *wb_class_of(struct wb_class_key *key, enum wb_dimension dimension)
{
	key->dimension = dimension;
	return bpf_map_lookup_elem(&classes, key);
}

static __always_inline void wb_set_key64(struct wb_class_key *key, __u64 low, __u64 high)
{
	key->data[0] = low;
	key->data[1] = low >> 32;
	key->data[2] = high;
	key->data[3] = high >> 32;
}

/*
 * Find the sets of the filters that each property of the connection
 * satisfies. A dimension in which no filter asks anything does not narrow them
 * down: the set of the destinations stands in for it.
 */
static __noinline bool wb_classify(struct wb_scan *s)
{
	struct wb_class_key key = { .prefix_bits = WB_CLASS_FIXED_BITS + 128, .generation = s->policy->generation };
	const struct wb_query *q = s->query;
	const struct wb_subject *process = q->layer & WB_FOR_ORIGIN ? &q->origin : &q->process;
	__u32 flags = s->policy->flags;

	__builtin_memcpy(key.data, q->dst.addr, sizeof(key.data));
	s->sets[WB_DESTINATION] = wb_class_of(&key, WB_DESTINATION);
	if (!s->sets[WB_DESTINATION])
		return false;
	for (int d = WB_PORT; d < WB_DIMENSIONS; d++)
		s->sets[d] = s->sets[WB_DESTINATION];

	wb_set_key64(&key, q->dst.protocol | (__u32)q->dst.port << 16, 0);
	s->sets[WB_PORT] = wb_class_of(&key, WB_PORT);
	if (!s->sets[WB_PORT])
		return false;
	if (flags & WB_ASKS_PROGRAM) {
		wb_set_key64(&key, process->inode, process->device);
		s->sets[WB_PROGRAM] = wb_class_of(&key, WB_PROGRAM);
		wb_set_key64(&key, q->origin.inode, q->origin.device);
		s->sets[WB_ORIGINAL_PROGRAM] = wb_class_of(&key, WB_ORIGINAL_PROGRAM);
		if (!s->sets[WB_PROGRAM] || !s->sets[WB_ORIGINAL_PROGRAM])
			return false;
	}
	if (flags & WB_ASKS_USER) {
		wb_set_key64(&key, process->uid, 0);
		s->sets[WB_USER] = wb_class_of(&key, WB_USER);
		if (!s->sets[WB_USER])
			return false;
	}
	if (flags & WB_ASKS_CGROUP) {
		wb_set_key64(&key, process->cgroup, 0);
		s->sets[WB_CGROUP] = wb_class_of(&key, WB_CGROUP);
		wb_set_key64(&key, q->origin.cgroup, 0);
		s->sets[WB_ORIGINAL_CGROUP] = wb_class_of(&key, WB_ORIGINAL_CGROUP);
		if (!s->sets[WB_CGROUP] || !s->sets[WB_ORIGINAL_CGROUP])
			return false;
	}
	return true;
}

static __always_inline bool wb_port_is_wanted(const struct wb_policy *policy, const struct wb_endpoint *dst)
{
	__u16 p = bpf_ntohs(dst->port);
	__u32 word = wb_equal(dst->protocol, IPPROTO_UDP) << 10 | p / 64;

	wb_keep_bound(word);
	return policy->ports[word & 2047] >> (p & 63) & 1;
}

/*
 * Walk the providers in order and stop at the first that may and wants to
 * have the connection, or forbids it. `hops` are the connection's records,
 * NULL if it has none. A global function, which the verifier walks once and
 * knowing nothing of its callers: inline it would be walked again from every
 * state in which a round of wb_try() can end, and Linux 6.19 with 512 MB runs
 * out of memory so.
 */
__noinline int wb_decide(const struct wb_policy *policy, const struct wb_query *query,
			 const struct wb_hop (*hops)[WB_MAX_HOPS], struct wb_decision *decision)
{
	struct wb_scan s = {};

	/* Of these only hops is ever NULL, but the verifier does not take a caller's word for it. */
	if (!policy || !query || !decision)
		return 0;
	__builtin_memset(decision, 0, sizeof(*decision));
	if (!wb_port_is_wanted(policy, &query->dst))
		return 0;
	s.policy = policy;
	s.query = query;
	s.hops = hops ? *hops : NULL;
	s.decision = decision;
	if (!wb_classify(&s))
		return 0;
	s.next = query->layer & WB_LAYER_AUTHORIZE ? policy->end[WB_LAYER_REDIRECT] : wb_hide(&s, 0);
	s.state = wb_hide(&s, WB_ANY_STATE);
	if (!(wb_summary(&s, 0) | wb_summary(&s, 1) | wb_summary(&s, 2)))
		return 0;
	bpf_loop(policy->n_providers, wb_visit, &s, 0);

	/* Who dials a proxy by its own address gets it: redirecting that would make the proxy call itself. */
	if (query->layer & WB_LAYER_AUTHORIZE ||
	    (decision->verdict == WB_PASS && !(decision->bypassed | decision->shadowed | decision->excluded)))
		return 0;
	s.found = 0;
	bpf_loop(policy->n_providers, wb_scan_proxy, &s, 0);
	if (s.found)
		__builtin_memset(decision, 0, sizeof(*decision));
	return 0;
}

#endif /* WB_POLICY_H */
