/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* connect(): choose a provider that is alive, stamp the socket, change the address. */
#ifndef WB_CONNECT_H
#define WB_CONNECT_H

#include "policy.h"
#include "process.h"
#include "records.h"

#define WB_LOOPBACK_IFINDEX 1 /* in every network namespace */
#define WB_REACHABLE WB_COUNTERS

struct wb_attempt {
	struct bpf_sock_addr *ctx;
	const struct wb_policy *policy;
	struct wb_socket *socket; /* NULL: there was no memory for it */
	struct wb_query query;
	struct wb_decision decision;
};

static __always_inline const struct wb_provider *wb_chosen(const struct wb_attempt *a)
{
	return &a->policy->providers[a->decision.provider & (WB_MAX_PROVIDERS - 1)];
}

static __always_inline const struct wb_endpoint *wb_proxy_for(const struct wb_provider *p,
							      const struct wb_endpoint *dst)
{
	return wb_is_mapped(dst->addr) ? &p->proxy4 : &p->proxy6;
}

/* Keep the filter's context with the socket, for the hand-over to the proxy. */
static __always_inline bool wb_attach_context(struct wb_attempt *a)
{
	struct wb_context_key key = { .generation = a->policy->generation, .filter = a->decision.filter };
	struct bpf_sock *sk = a->ctx->sk;
	struct wb_context *context;

	if (!(a->policy->filters[a->decision.filter & (WB_MAX_FILTERS - 1)].flags & WB_FILTER_CONTEXT))
		return true;
	context = bpf_map_lookup_elem(&contexts, &key);
	if (!context || !sk)
		return false;
	bpf_sk_storage_delete(&socket_contexts, sk);
	if (!bpf_sk_storage_get(&socket_contexts, sk, context, BPF_SK_STORAGE_GET_F_CREATE))
		return false;
	a->socket->has_context = 1;
	return true;
}

/*
 * Whether a process of the provider listens on its proxy address, in this
 * network namespace, at this moment. A stranger that took a dead proxy's port
 * is none.
 */
static __always_inline enum wb_counter wb_probe_listener(struct bpf_sock_addr *ctx, const struct wb_provider *p,
							 const struct wb_endpoint *proxy)
{
	struct bpf_sock_tuple tuple = {};
	enum wb_counter result = WB_DOWN_NO_LISTENER;
	struct bpf_sock *sk;
	__u32 size;

	if (wb_is_mapped(proxy->addr)) {
		tuple.ipv4.daddr = proxy->addr[3];
		tuple.ipv4.dport = proxy->port;
		size = sizeof(tuple.ipv4);
	} else {
		__builtin_memcpy(tuple.ipv6.daddr, proxy->addr, sizeof(proxy->addr));
		tuple.ipv6.dport = proxy->port;
		size = sizeof(tuple.ipv6);
	}
	sk = bpf_sk_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return result;
	if (sk->state == BPF_TCP_LISTEN)
		result = wb_socket_is_of(sk, p->cgroup, p->cgroup_level) ? WB_REACHABLE : WB_DOWN_FOREIGN_LISTENER;
	bpf_sk_release(sk);
	return result;
}

/* Why the chosen provider can not have the connection; WB_REACHABLE if it can. */
static __always_inline enum wb_counter wb_probe(struct wb_attempt *a)
{
	const struct wb_provider *p = wb_chosen(a);
	const struct wb_endpoint *proxy = wb_proxy_for(p, &a->query.dst);
	struct bpf_sock *sk = a->ctx->sk;
	enum wb_counter result;

	if (!a->socket)
		return WB_DOWN_NO_MEMORY;
	if (!proxy->port)
		return WB_DOWN_NO_ADDRESS;
	/* Bound to a device, the SYN would leave by it and never reach a proxy on loopback. */
	if (sk && sk->bound_dev_if && sk->bound_dev_if != WB_LOOPBACK_IFINDEX)
		return WB_DOWN_DEVICE;
	if (*(volatile __u64 *)&inflight_used >= inflight_limit)
		return WB_DOWN_INFLIGHT_FULL;
	result = wb_probe_listener(a->ctx, p, proxy);
	/* Last, so that a context never stays with a socket that its provider did not get. */
	if (result == WB_REACHABLE && !wb_attach_context(a))
		result = WB_DOWN_NO_MEMORY;
	return result;
}

/* One round: decide, and if the chosen provider is down, mark it and go on. */
static long wb_try(__u32 round, struct wb_attempt *a)
{
	const struct wb_provider *p;
	enum wb_counter down;

	/* The first round of a process that is no proxy's has been decided by wb_connect() already. */
	if (round || a->query.self >= 0)
		wb_decide(a->policy, &a->query, a->socket ? &a->socket->records.hops : NULL, &a->decision);
	if (a->decision.verdict != WB_REDIRECT)
		return 1;
	down = wb_probe(a);
	if (down == WB_REACHABLE)
		return 1;
	wb_count(down);
	p = wb_chosen(a);
	wb_count_provider(p->handle, p->on_down == WB_BLOCK ? WB_PROVIDER_BLOCKED : WB_PROVIDER_BYPASSED);
	a->query.down |= 1ULL << (a->decision.provider & (WB_MAX_PROVIDERS - 1));
	return 0;
}

/* Add this connect()'s hop to the socket, and who asked if no proxy has said so. */
static __always_inline void wb_stamp(struct wb_attempt *a)
{
	const struct wb_provider *p = wb_chosen(a);
	struct wb_socket *s = a->socket;
	struct wb_records *r = &s->records;
	__u32 self = a->query.self;

	if (!s->carried || (a->policy->flags & WB_TRACKING_OFF)) {
		r->version = WB_RECORDS_VERSION;
		r->n_hops = 0;
		s->carried = 0;
		wb_describe_current(&r->origin, bpf_get_netns_cookie(a->ctx));
		if (a->query.self >= 0 && !(a->policy->flags & WB_TRACKING_OFF))
			wb_add_hop(r, &a->policy->providers[self & (WB_MAX_PROVIDERS - 1)], &a->query.dst,
				   WB_HOP_IMPLIED);
	}
	wb_add_hop(r, p, &a->query.dst, 0);
	s->proxy = *wb_proxy_for(p, &a->query.dst);
	s->proxy_cgroup = p->cgroup;
	s->proxy_cgroup_level = p->cgroup_level;
	wb_count(WB_REDIRECTED);
	wb_count_provider(p->handle, WB_PROVIDER_REDIRECTED);
}

static __always_inline int wb_refuse(int error)
{
	bpf_set_retval(-error);
	return 0;
}

/*
 * The connect hook: dst is where the application wants to go and, on return,
 * where the connection goes. The socket is locked by inet_stream_connect().
 */
static __always_inline int wb_connect(struct bpf_sock_addr *ctx, struct wb_endpoint *dst)
{
	struct wb_attempt a = { .ctx = ctx, .query = { .dst = *dst, .self = -1 } };
	struct bpf_sock *sk = ctx->sk;

	if (!sk || ctx->protocol != IPPROTO_TCP)
		return 1;
	wb_resolve_any(&a.query.dst);
	a.socket = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (a.socket) {
		wb_begin_connect(a.socket);
		a.query.n_hops = a.socket->carried;
	}
	a.policy = wb_active_policy();
	if (!a.policy)
		return 1;
	if (a.policy->flags & WB_TRACKING_OFF)
		a.query.n_hops = 0;

	/* Most connections end here: nobody wants them. Who connects is looked up only for the others. */
	wb_decide(a.policy, &a.query, a.socket ? &a.socket->records.hops : NULL, &a.decision);
	if (a.decision.verdict == WB_PASS || wb_current_is_kernel()) {
		wb_count(WB_PASSED);
		return 1;
	}
	if (!a.query.n_hops)
		a.query.self = wb_current_provider(a.policy);
	if (!a.socket)
		a.socket = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	bpf_loop(WB_MAX_PROVIDERS + 1, wb_try, &a, 0);

	if (a.decision.bypassed)
		wb_add(WB_BYPASSED, a.decision.bypassed);
	switch (a.decision.verdict) {
	case WB_REFUSE:
		wb_count(WB_BLOCKED);
		return wb_refuse(EACCES);
	case WB_LOOP:
		wb_count(WB_LOOPED);
		return wb_refuse(ELOOP);
	case WB_REDIRECT:
		if (!a.socket) /* not reached: wb_probe() refuses it, but the verifier wants to see it */
			return 1;
		wb_stamp(&a);
		*dst = *wb_proxy_for(wb_chosen(&a), &a.query.dst);
		return 1;
	default:
		wb_count(WB_PASSED);
		return 1;
	}
}

#endif /* WB_CONNECT_H */
