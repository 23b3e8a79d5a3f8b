/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * The decision: which provider, if any, gets a connection. It reads nothing
 * but its arguments, so that a test can ask it on its own; its Go twin is
 * internal/policy/decide.go, and the two are compared on random input.
 */
#ifndef WB_POLICY_H
#define WB_POLICY_H

#include "abi.h"

struct wb_scan {
	const struct wb_policy *policy;
	const struct wb_query *query;
	const struct wb_hop *hops;
	const struct wb_provider *provider; /* the one whose filters are being scanned */
	struct wb_decision *decision;
	__u32 dst_is_local;
	__u32 found;
};

static __always_inline bool wb_is_mapped(const __be32 *addr)
{
	return addr[0] == 0 && addr[1] == 0 && addr[2] == bpf_htonl(0xffff);
}

static __always_inline bool wb_is_loopback(const __be32 *addr)
{
	if (wb_is_mapped(addr))
		return (addr[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return addr[0] == 0 && addr[1] == 0 && addr[2] == 0 && addr[3] == bpf_htonl(1);
}

static __always_inline bool wb_is_link_local6(const __be32 *addr)
{
	return (addr[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
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

static __always_inline bool wb_may_redirect(enum waybill_state state)
{
	return state == WAYBILL_NOT_REDIRECTED || state == WAYBILL_REDIRECTED_BY_OTHER;
}

/*
 * Loopback and link-local destinations match only a filter whose prefix lies
 * in that space: "everything" means everything that leaves the machine.
 */
static __always_inline bool wb_filter_matches(const struct wb_filter *f, const struct wb_endpoint *dst, bool local)
{
	__u16 port = bpf_ntohs(dst->port);

	if (wb_is_mapped(dst->addr) != (f->flags & WB_FILTER_IPV4))
		return false; /* else ::/0 would take in all of IPv4 */
	if (local && !(f->flags & WB_FILTER_LOCAL))
		return false;
	if (port < f->port_first || port > f->port_last)
		return false;
	for (int i = 0; i < 4; i++)
		if ((dst->addr[i] & f->mask[i]) != f->prefix[i])
			return false;
	return true;
}

static long wb_scan_filter(__u32 i, struct wb_scan *s)
{
	__u32 index = s->provider->first_filter + i;

	if (index >= WB_MAX_FILTERS)
		return 1;
	if (!wb_filter_matches(&s->policy->filters[index], &s->query->dst, s->dst_is_local))
		return 0;
	s->decision->filter = index;
	s->found = 1;
	return 1;
}

static __always_inline enum waybill_state wb_provider_state(const struct wb_scan *s, __u32 i)
{
	if (!s->query->n_hops && s->query->self >= 0)
		return wb_implied_state(s->policy, s->provider, i, s->query->self);
	return wb_state(s->provider, s->hops, s->query->n_hops);
}

static long wb_scan_provider(__u32 i, struct wb_scan *s)
{
	struct wb_decision *d = s->decision;

	if (i >= WB_MAX_PROVIDERS)
		return 1;
	s->provider = &s->policy->providers[i];
	if (!wb_may_redirect(wb_provider_state(s, i)))
		return 0;
	s->found = 0;
	bpf_loop(s->provider->n_filters, wb_scan_filter, s, 0);
	if (!s->found)
		return 0;

	d->provider = i;
	if (s->query->down & (1ULL << i)) {
		if (s->provider->on_down == WB_BLOCK) {
			d->verdict = WB_REFUSE;
			return 1;
		}
		d->bypassed++;
		return 0;
	}
	d->verdict = s->query->n_hops >= WB_MAX_HOPS ? WB_LOOP : WB_REDIRECT;
	return 1;
}

static long wb_scan_proxy(__u32 i, struct wb_scan *s)
{
	const struct wb_provider *p;

	if (i >= WB_MAX_PROVIDERS)
		return 1;
	p = &s->policy->providers[i];
	if (!wb_same_endpoint(&p->proxy4, &s->query->dst) && !wb_same_endpoint(&p->proxy6, &s->query->dst))
		return 0;
	s->found = 1;
	return 1;
}

/*
 * Walk the providers in order and stop at the first that may and wants to
 * have the connection. `hops` are the connection's records, NULL if it has
 * none. A global function, which the verifier walks once and knowing nothing
 * of its callers: inline it would be walked again from every state in which a
 * round of wb_try() can end, and Linux 6.19 with 512 MB runs out of memory so.
 */
__noinline int wb_decide(const struct wb_policy *policy, const struct wb_query *query,
			 const struct wb_hop (*hops)[WB_MAX_HOPS], struct wb_decision *decision)
{
	struct wb_scan s = {};

	/* Of these only hops is ever NULL, but the verifier does not take a caller's word for it. */
	if (!policy || !query || !decision)
		return 0;
	s.policy = policy;
	s.query = query;
	s.hops = hops ? *hops : NULL;
	s.decision = decision;
	decision->verdict = WB_PASS;
	decision->provider = 0;
	decision->filter = 0;
	decision->bypassed = 0;

	s.dst_is_local = wb_is_loopback(query->dst.addr) || wb_is_link_local6(query->dst.addr);
	bpf_loop(policy->n_providers, wb_scan_provider, &s, 0);
	if (decision->verdict == WB_PASS && !decision->bypassed)
		return 0;

	/* Who dials a proxy by its own address gets it: redirecting that would make the proxy call itself. */
	s.found = 0;
	bpf_loop(policy->n_providers, wb_scan_proxy, &s, 0);
	if (s.found) {
		decision->verdict = WB_PASS;
		decision->bypassed = 0;
	}
	return 0;
}

#endif /* WB_POLICY_H */
