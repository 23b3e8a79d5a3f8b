/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* connect(): choose a provider that is alive, stamp the socket, change the address. */
#ifndef WB_CONNECT_H
#define WB_CONNECT_H

#include "attempt.h"
#include "candidate.h"
#include "listener.h"
#include "parting.h"
#include "peer.h"
#include "source.h"

#define WB_LOOPBACK_IFINDEX 1 /* in every network namespace */

/* Keep the filter's context with the socket, for the hand-over to the proxy. */
static __always_inline bool wb_attach_context(struct wb_attempt *a)
{
	struct wb_context_key key = { .generation = a->policy->generation, .filter = a->decision.filter };
	struct bpf_sock *sk = a->ctx->sk;
	struct wb_context *context;

	if (a->decision.filter >= WB_MAX_FILTERS ||
	    !(a->policy->filters[a->decision.filter].flags & WB_FILTER_HAS_CONTEXT))
		return true;
	context = bpf_map_lookup_elem(&contexts, &key);
	if (!context || !sk)
		return false;
	bpf_sk_storage_delete(&socket_contexts, sk);
	if (!bpf_sk_storage_get(&socket_contexts, sk, context, BPF_SK_STORAGE_GET_F_CREATE))
		return false;
	a->socket->flags |= WB_HAS_CONTEXT;
	return true;
}

/*
 * Whether a process of the provider listens on its proxy address at this
 * moment, and accepts. A stranger that took a dead proxy's port is none.
 * Like those after it a global function, as wb_decide() is.
 */
__noinline int wb_probe_listener(struct bpf_sock_addr *ctx, const struct wb_provider *p,
				 const struct wb_endpoint *proxy)
{
	struct bpf_sock *sk = p && proxy ? wb_find_listener(ctx, proxy) : NULL;
	int result = WB_DOWN_NO_LISTENER;

	if (!sk)
		return result;
	if (sk->state == BPF_TCP_LISTEN)
		result = wb_listener_health(sk, p);
	bpf_sk_release(sk);
	return result;
}

/* Likewise for UDP. Whether it reads what it is sent, the kernel does not tell: a full queue drops. */
__noinline int wb_probe_receiver(struct bpf_sock_addr *ctx, __u64 cgroup, __u32 level, const struct wb_endpoint *proxy)
{
	int result = WB_DOWN_FOREIGN_LISTENER;
	struct bpf_sock *sk = proxy ? wb_find_receiver(ctx, NULL, proxy) : NULL;

	if (!sk)
		return WB_DOWN_NO_LISTENER;
	if (wb_datagrams_are_of(sk, cgroup, level))
		result = WB_REACHABLE;
	bpf_sk_release(sk);
	return result;
}

static __always_inline bool wb_is_loopback(const struct wb_endpoint *dst)
{
	if (wb_is_mapped(dst->addr))
		return (dst->addr[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !(dst->addr[0] | dst->addr[1] | dst->addr[2]) && dst->addr[3] == bpf_htonl(1);
}

/* Multicast, broadcast: connect() fails, and says why. (Port 0 is one like any other to TCP.) */
static __always_inline bool wb_is_no_peer(const struct wb_endpoint *dst)
{
	__u32 first = bpf_ntohl(dst->addr[0]), ip4 = bpf_ntohl(dst->addr[3]);

	return wb_is_mapped(dst->addr) ? ip4 >> 28 == 0xe || ip4 == 0xffffffff : first >> 24 == 0xff;
}

/*
 * A connection to this machine that nobody there would accept is not
 * redirected: the application is to see ECONNREFUSED from its connect(), not an
 * end of what a proxy had accepted. Of other destinations we know nothing.
 */
__noinline int wb_destination_refuses(struct bpf_sock_addr *ctx, const struct wb_endpoint *dst)
{
	struct bpf_sock *sk;

	if (!dst || wb_is_no_peer(dst))
		return true;
	if (!wb_is_loopback(dst))
		return false;
	sk = dst->protocol == IPPROTO_UDP ? wb_find_receiver(ctx, NULL, dst) : wb_find_listener(ctx, dst);
	if (!sk)
		return true;
	bpf_sk_release(sk);
	return false;
}

/*
 * Whether the user at the start of the flow has half of a map in use: of that
 * of connections in flight, or of that of peers. A program can make SYNs that no
 * proxy answers: it must not fill the map for everybody. Root could do worse.
 */
static __always_inline bool wb_is_over_share(const struct wb_attempt *a, void *users, __u32 limit)
{
	__u32 uid = wb_user_of(a);
	__u64 *used = uid ? wb_user_count(users, uid) : NULL;

	return used && *(volatile __u64 *)used >= limit / 2;
}

/* Why the chosen provider can not be reached; WB_REACHABLE if it can. */
__noinline int wb_probe(struct bpf_sock_addr *ctx, const struct wb_policy *policy, const struct wb_query *query,
			const struct wb_decision *d)
{
	const struct wb_endpoint *proxy;
	const struct wb_provider *p;
	struct bpf_sock *sk = ctx->sk;

	if (!policy || !query || !d)
		return WB_DOWN_NO_ADDRESS;
	p = wb_provider_at(policy, d->provider);
	proxy = wb_proxy_for(p, &query->dst);
	if (!proxy->port)
		return WB_DOWN_NO_ADDRESS;
	/* Bound to a device, the SYN would leave by it and never reach a proxy on loopback. */
	if (sk && sk->bound_dev_if && sk->bound_dev_if != WB_LOOPBACK_IFINDEX)
		return WB_DOWN_DEVICE;
	if (query->dst.protocol == IPPROTO_UDP)
		return wb_probe_receiver(ctx, p->cgroup, p->cgroup_level, proxy);
	if (*(volatile __u64 *)&inflight_used >= inflight_limit)
		return WB_DOWN_INFLIGHT_FULL;
	return wb_probe_listener(ctx, p, proxy);
}

static __always_inline void wb_mark_down(struct wb_attempt *a)
{
	a->query.down |= 1ULL << (a->decision.provider & (WB_MAX_PROVIDERS - 1));
}

/* The chosen provider is down: decide again, without it. */
static __always_inline void wb_pass_over(struct wb_attempt *a, __u32 why)
{
	const struct wb_provider *p = wb_chosen(a);

	wb_mark_down(a);
	wb_count(why);
	if (p->on_down == WB_BYPASS)
		wb_count(WB_BYPASSED);
	wb_count_provider(p->handle, p->on_down == WB_BLOCK ? WB_PROVIDER_BLOCKED : WB_PROVIDER_BYPASSED);
}

/* One round: decide, and if the chosen provider is down, mark it and go on. */
static long wb_try(__u32 round, struct wb_attempt *a)
{
	__u32 why;

	/* The first round of a process that is no proxy's has been decided by wb_choose() already. */
	if (round || a->query.self >= 0)
		wb_decide(a->policy, &a->query, a->socket ? &a->socket->records.hops : NULL, &a->decision);
	if (a->decision.verdict != WB_REDIRECT)
		return 1;
	if (!round && wb_destination_refuses(a->ctx, &a->query.dst)) {
		wb_count(WB_DESTINATION_REFUSES);
		a->decision.verdict = WB_PASS;
		return 1;
	}
	/*
	 * Programs connect() with UDP to find out about routes; a proxy of TCP may know a way that we do not.
	 * Refused, not let go: should there be a route by now, nothing goes past a proxy.
	 */
	if (!round && wb_is_udp(a) && !a->datagram) {
		a->error = wb_route_error(a->ctx, &a->query.dst);
		if (a->error) {
			a->decision.verdict = WB_PASS;
			return 1;
		}
	}
	why = wb_probe(a->ctx, a->policy, &a->query, &a->decision);
	if (why == WB_REACHABLE)
		return 1;
	wb_pass_over(a, why);
	return 0;
}

/* Give the datagram's flow to the chosen provider. Under another policy it may be that which has it already. */
static __always_inline enum wb_counter wb_give_peer(struct wb_attempt *a, struct wb_peers *own)
{
	struct wb_peer *peer = wb_find_peer(own, &a->query.dst);
	const struct wb_provider *p = wb_chosen(a);
	enum wb_counter result;

	/* One that belongs to another flow ends with its time: no proxy is to know two flows by one address. */
	if (peer && !wb_is_of_flow(peer, a))
		peer = NULL;
	if (peer && wb_newest_hop(&peer->socket)->handle == p->handle &&
	    wb_same_endpoint(&peer->socket.proxy, wb_proxy_for(p, &a->query.dst))) {
		peer->generation = a->policy->generation;
		a->peer = peer;
		a->known = 1;
		return WB_REACHABLE;
	}
	if (peer)
		result = wb_switch_peer(a->policy, &a->decision, own, peer, a->socket);
	else
		result = wb_make_peer(a->policy, &a->query, &a->decision, own, a->socket);
	if (result != WB_REACHABLE)
		return result;
	a->peer = wb_find_peer(own, &a->query.dst);
	return a->peer ? WB_REACHABLE : WB_REFUSED_NO_MEMORY;
}

/* Make room for what the proxy is to be told. WB_REACHABLE, or why there is none. */
static __noinline enum wb_counter wb_prepare(struct wb_attempt *a)
{
	struct bpf_sock *sk = a->ctx->sk;
	struct wb_peers *own;

	if (wb_is_udp(a) ? wb_is_over_share(a, &peer_users, 1 << WB_PEER_BITS)
			 : wb_is_over_share(a, &inflight_users, inflight_limit))
		return WB_REFUSED_OVER_SHARE;
	if (!sk)
		return WB_REFUSED_NO_MEMORY;
	if (wb_is_udp(a)) {
		own = wb_peers_of(a);
		if (!own)
			return WB_REFUSED_NO_MEMORY;
		if (a->datagram) {
			wb_note_bound(own, sk);
			own->uid = wb_user_of(a);
			return wb_give_peer(a, own);
		}
	}
	if (!a->socket)
		a->socket = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	/* Last, so that a context never stays with a socket that its provider did not get. */
	return a->socket && wb_attach_context(a) ? WB_REACHABLE : WB_REFUSED_NO_MEMORY;
}

/* What a program has done to its own socket, or with its share, gets it past nobody. */
static __always_inline void wb_prepare_or_refuse(struct wb_attempt *a)
{
	enum wb_counter why = wb_prepare(a);

	if (why == WB_REACHABLE)
		return;
	wb_count(why);
	wb_count_provider(wb_chosen(a)->handle, WB_PROVIDER_BLOCKED);
	a->decision.verdict = WB_REFUSE;
	a->error = ENOBUFS;
}

/*
 * Add this connect()'s hop to the socket, and who asked if no proxy has said
 * so. A global function, as wb_decide() is.
 */
__noinline int wb_stamp(const struct wb_policy *policy, const struct wb_query *query, const struct wb_decision *d,
			struct wb_socket *s, __u64 netns_cookie)
{
	const struct wb_provider *p;
	struct wb_records *r;

	if (!policy || !query || !d || !s)
		return 0;
	p = wb_provider_at(policy, d->provider);
	r = &s->records;
	if (!s->carried || (policy->flags & WB_TRACKING_OFF)) {
		r->version = WB_RECORDS_VERSION;
		r->n_hops = 0;
		s->carried = 0;
		wb_describe_current(&r->origin, netns_cookie, wb_new_flow_id());
		wb_current_program(&r->inode, &r->device);
		wb_keep_lineage(); /* a later policy may ask, too */
		if (query->self >= 0 && !(policy->flags & WB_TRACKING_OFF))
			wb_add_hop(r, wb_provider_at(policy, query->self), &query->dst, WB_HOP_IMPLIED);
	}
	wb_add_hop(r, p, &query->dst, 0);
	s->proxy = *wb_proxy_for(p, &query->dst);
	if (p->flags & WB_EMULATE_TPROXY)
		s->flags |= WB_BEHIND_TPROXY;
	s->by.departure.proxy_cgroup = p->cgroup;
	s->proxy_cgroup_level = p->cgroup_level;
	wb_count(WB_REDIRECTED);
	wb_count_provider(p->handle, WB_PROVIDER_REDIRECTED);
	return 0;
}

static __always_inline int wb_refuse(int error)
{
	bpf_set_retval(-error);
	return 0;
}

/* As fib_props[] has them, which the kernel's answer comes from. */
static __always_inline int wb_refuse_unrouted(__u32 error)
{
	wb_count(WB_DESTINATION_UNROUTED);
	switch (error) {
	case EHOSTUNREACH:
		return wb_refuse(EHOSTUNREACH);
	case EACCES:
		return wb_refuse(EACCES);
	case EINVAL:
		return wb_refuse(EINVAL);
	default:
		return wb_refuse(ENETUNREACH);
	}
}

/*
 * Whether some filter forbids the connection: to the process that makes it,
 * or, if that is a proxy, to the process that it makes it for.
 */
static __always_inline bool wb_is_forbidden(struct wb_attempt *a)
{
	const struct wb_hop(*hops)[WB_MAX_HOPS] = a->socket ? &a->socket->records.hops : NULL;

	if (a->policy->end[WB_LAYER_AUTHORIZE] == a->policy->end[WB_LAYER_REDIRECT])
		return false;
	if (!a->query.n_hops)
		a->query.self = wb_current_provider(a->policy); /* the state depends on it */
	a->query.layer = WB_LAYER_AUTHORIZE;
	wb_decide(a->policy, &a->query, hops, &a->decision);
	a->shadowed = a->decision.shadowed;
	if (a->decision.verdict == WB_PASS && a->query.n_hops) {
		a->query.layer |= WB_FOR_ORIGIN;
		wb_decide(a->policy, &a->query, hops, &a->decision);
		a->shadowed |= a->decision.shadowed;
	}
	a->query.layer = WB_LAYER_REDIRECT;
	return a->decision.verdict == WB_FORBID;
}

static long wb_count_shadow(__u32 i, struct wb_attempt *a)
{
	__u64 shadowed = a->decision.shadowed;

	if (i >= WB_MAX_PROVIDERS || !(shadowed >> i))
		return 1;
	if (!(shadowed >> i & 1))
		return 0;
	wb_count(WB_SHADOWED);
	wb_count_provider(a->policy->providers[i].handle, WB_PROVIDER_SHADOWED);
	return 0;
}

static __always_inline bool wb_chosen_drops_quic(const struct wb_attempt *a)
{
	__u32 filter = a->decision.filter;

	wb_keep_bound(filter);
	return filter < WB_MAX_FILTERS && a->policy->filters[filter].flags & WB_DROPS_QUIC;
}

/* One connection of a supposed chain, or one try of it. WB_DROP_QUIC: by a filter that drops QUIC. */
static long wb_suppose(__u32 round, struct wb_attempt *a)
{
	struct wb_query *q = &a->query;

	wb_decide(a->policy, q, q->n_hops && a->socket ? &a->socket->records.hops : NULL, &a->decision);
	if (a->decision.verdict == WB_PASS)
		return 1;
	if (a->decision.verdict == WB_REDIRECT) {
		if (!round && wb_destination_refuses(a->ctx, &q->dst))
			goto nobody;
		if (wb_probe(a->ctx, a->policy, q, &a->decision) != WB_REACHABLE) {
			wb_mark_down(a);
			return 0;
		}
	}
	if (wb_chosen_drops_quic(a)) {
		a->decision.verdict = WB_DROP_QUIC;
		return 1;
	}
	if (a->decision.verdict != WB_REDIRECT)
		goto nobody;
	/* Its proxy would connect in turn. Of what process that is, only the provider is known. */
	q->self = a->decision.provider;
	q->n_hops = 0;
	__builtin_memset(&q->process, 0, sizeof(q->process));
	q->process.uid = -1;
	return 0;
nobody:
	a->decision.verdict = WB_PASS;
	return 1;
}

/*
 * Whether this is UDP that a program is to do without, because QUIC would be a
 * way around: where TCP to the same destination would be redirected, be it by
 * the proxy of another provider, or refused as the provider is down, by a filter
 * that says so. It counts nothing. Proxies are taken for such that set no
 * records.
 */
static __always_inline bool wb_drops_quic(struct wb_attempt *a)
{
	long rounds;

	/* The ports of such filters are among those that are wanted of UDP. */
	if (!wb_is_udp(a) || !(a->policy->flags & WB_HAS_QUIC_DROPS) || !wb_port_is_wanted(a->policy, &a->query.dst))
		return false;
	if (!a->query.n_hops && a->query.self < 0)
		a->query.self = wb_current_provider(a->policy);
	a->n_hops = a->query.n_hops;
	a->self = a->query.self;
	a->query.dst.protocol = IPPROTO_TCP;
	rounds = bpf_loop(WB_MAX_PROVIDERS + 1, wb_suppose, a, 0);
	a->query.dst.protocol = IPPROTO_UDP;
	/* What is told is told of who connects, not of the proxy that would. */
	a->query.down = 0;
	a->query.n_hops = a->n_hops;
	a->query.self = a->self;
	if (a->decision.verdict == WB_DROP_QUIC) {
		/* Whom the connection of TCP would have gone past: no provider has been asked about the UDP at hand. */
		a->decision.bypassed = 0;
		a->decision.shadowed = 0;
		a->decision.excluded = 0;
		return true;
	}
	if (rounds > 1) /* the first one leaves who connects as it was */
		wb_identify_if_asked(a);
	return false;
}

/* Choose a provider that is alive. */
static __always_inline void wb_choose(struct wb_attempt *a)
{
	const struct wb_decision *d = &a->decision;

	/* Most connections end here: nobody wants them. Who connects is looked up only for the others. */
	wb_decide(a->policy, &a->query, a->socket ? &a->socket->records.hops : NULL, &a->decision);
	if (d->verdict == WB_PASS && !(d->shadowed | d->excluded))
		return;
	if (!a->query.n_hops && a->query.self < 0)
		a->query.self = wb_current_provider(a->policy);
	bpf_loop(WB_MAX_PROVIDERS + 1, wb_try, a, 0);
	if (d->verdict == WB_REDIRECT)
		wb_prepare_or_refuse(a);
}

/* What the application sees of the decision. */
static __noinline int wb_conclude(struct wb_attempt *a)
{
	struct wb_socket *s;

	switch (a->decision.verdict) {
	case WB_FORBID:
		wb_count(WB_FORBIDDEN);
		wb_count_provider(wb_chosen(a)->handle, WB_PROVIDER_FORBIDDEN);
		return wb_refuse(EACCES);
	case WB_DROP_QUIC:
		wb_count(WB_QUIC_DROPPED);
		wb_count_provider(wb_chosen(a)->handle, WB_PROVIDER_FORBIDDEN);
		return wb_refuse(EACCES);
	case WB_REFUSE:
		wb_count(WB_BLOCKED);
		return a->error == ENOBUFS ? wb_refuse(ENOBUFS)
					   : wb_refuse(EACCES); /* numbers that the verifier can see */
	case WB_LOOP:
		wb_count(WB_LOOPED);
		return wb_refuse(ELOOP);
	case WB_REDIRECT:
		/* Without any of the two, which wb_prepare() refuses, this is not reached; the verifier wants to see it. */
		s = a->datagram ? (a->peer && !a->known ? &a->peer->socket : NULL) : a->socket;
		if (s)
			wb_stamp(a->policy, &a->query, &a->decision, s, bpf_get_netns_cookie(a->ctx));
		return 1;
	default:
		if (a->error)
			return wb_refuse_unrouted(a->error);
		wb_count(WB_PASSED);
		return 1;
	}
}

/* Whether the connection may forward one that a proxy accepted, should a proxy make it. */
static __always_inline bool wb_may_have_kin(const struct wb_attempt *a)
{
	return !(a->policy->flags & WB_TRACKING_OFF) && wb_port_is_wanted(a->policy, &a->query.dst) &&
	       wb_has_candidates(&a->query.dst);
}

/* A connection without records, of this provider's proxy, may forward one that it accepted. */
static __noinline void wb_find_kin(struct wb_attempt *a, __u32 self)
{
	struct wb_heir heir = { .sk = a->ctx->sk, .socket = a->socket };

	if (!heir.sk)
		return;
	heir.search.handle = wb_provider_at(a->policy, self)->handle;
	heir.search.dst = a->query.dst;
	heir.search.netns_cookie = bpf_get_netns_cookie(a->ctx);
	a->query.kinship = wb_inherit(&heir);
	a->socket = heir.socket;
	if (a->query.kinship && a->socket)
		a->query.n_hops = a->socket->carried;
}

/* How many hops the socket carries. Those that it took over stay for as long as it dials where they lead. */
static __noinline int wb_carried(struct wb_attempt *a)
{
	struct wb_socket *s = a->socket;

	if (!s)
		return 0;
	if (!(s->flags & WB_TOOK_OVER) || !s->carried)
		return s->carried;
	if (wb_hop_is_to(&s->records.hops[(s->carried - 1) & (WB_MAX_HOPS - 1)], &a->query.dst)) {
		a->query.kinship = s->flags & WB_IS_AMBIGUOUS ? WB_KIN_AMBIGUOUS : WB_KIN_INHERITED;
		return s->carried;
	}
	s->carried = 0;
	s->flags = 0;
	wb_forget_stamp(s);
	return 0;
}

static __always_inline bool wb_is_any6(const struct wb_endpoint *dst)
{
	return !(dst->addr[0] | dst->addr[1] | dst->addr[2] | dst->addr[3]);
}

static __always_inline bool wb_is_bound_mapped(const struct bpf_sock *sk)
{
	return sk->family == AF_INET6 && !sk->src_ip6[0] && !sk->src_ip6[1] && sk->src_ip6[2] == bpf_htonl(0xffff);
}

/*
 * Tell user space what became of it. A socket of UDP that is connected is no
 * flow before something is sent: resolvers connect() to find out about routes.
 * What there is to tell of it is kept: see wb_meet(). 1: it is lost. (A result
 * that nobody uses clang leaves out, and the verifier finds a pointer in its
 * place.)
 */
static __noinline int wb_report(struct wb_attempt *a)
{
	bool later = wb_is_udp(a) && !a->datagram && a->decision.verdict == WB_REDIRECT;
	const struct wb_records *records = NULL;
	struct bpf_sock *sk = a->ctx->sk;
	struct wb_outcome *o = NULL;

	if (a->datagram && a->peer)
		records = &a->peer->socket.records;
	else if (!a->datagram && a->socket && a->socket->records.n_hops)
		records = &a->socket->records;
	if (!wb_is_worth_telling(&a->query, &a->decision, records) || (a->datagram && !wb_is_news(a)))
		return 0;
	if (later) {
		o = sk ? bpf_sk_storage_get(&outcomes, sk, 0, BPF_SK_STORAGE_GET_F_CREATE) : NULL;
		if (o) {
			o->process.netns_cookie = bpf_get_netns_cookie(a->ctx);
			wb_describe_outcome(a->policy, &a->query, &a->decision, records, o);
			return 0;
		}
	} else {
		o = bpf_ringbuf_reserve(&events, sizeof(*o), 0);
		if (o) {
			o->process.netns_cookie = bpf_get_netns_cookie(a->ctx);
			wb_describe_outcome(a->policy, &a->query, &a->decision, records, o);
			bpf_ringbuf_submit(o, 0);
			return 0;
		}
	}
	return 1;
}

/* What becomes of a connect(), or of a datagram without one. Its answer is the hook's. */
static __always_inline int wb_judge(struct wb_attempt *a)
{
	int answer, self;

	if (a->policy->flags & WB_TRACKING_OFF)
		a->query.n_hops = 0;
	if (wb_current_is_kernel()) {
		wb_count(WB_PASSED);
		return 1;
	}
	if (!a->query.n_hops && !a->aside && wb_may_have_kin(a)) {
		self = wb_current_provider(a->policy);
		if (self >= 0)
			wb_find_kin(a, self);
	}
	wb_identify_if_asked(a);
	if (!wb_is_forbidden(a) && !wb_drops_quic(a))
		wb_choose(a);
	if (a->query.self >= 0)
		a->query.kinship = WB_KIN_IMPLIED;
	a->decision.shadowed |= a->shadowed;
	if (a->decision.shadowed)
		bpf_loop(WB_MAX_PROVIDERS, wb_count_shadow, a, 0);
	answer = wb_conclude(a);
	if (!a->known && wb_report(a))
		wb_count(WB_EVENTS_LOST);
	return answer;
}

/*
 * The connect hook. a->query.dst is where the application wants to go, and
 * wb_new_dst(), on return, where the connection goes instead, if it does. The
 * socket is locked by inet_stream_connect(), or by the hook of UDP.
 */
static __always_inline int wb_connect(struct bpf_sock_addr *ctx, struct wb_attempt *a)
{
	struct bpf_sock *sk = ctx->sk;
	struct wb_peers *own;
	int answer;

	a->ctx = ctx;
	a->query.self = -1;
	a->query.dst.protocol = ctx->protocol;

	if (!sk || (ctx->protocol != IPPROTO_TCP && (ctx->protocol != IPPROTO_UDP || ctx->type != SOCK_DGRAM)))
		return 1;
	/* As tcp_v6_connect() does for a socket that is bound to an IPv4-mapped address. */
	if (wb_is_any6(&a->query.dst) && wb_is_bound_mapped(sk))
		a->query.dst.addr[2] = bpf_htonl(0xffff);
	wb_resolve_any(&a->query.dst);
	if (wb_is_udp(a)) {
		own = bpf_sk_storage_get(&socket_peers, sk, 0, 0);
		if (own)
			wb_part_connected(own);
		if (wb_is_peer_address(a->query.dst.addr) && wb_accept_peer(a))
			return 1;
	}
	a->socket = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (a->socket)
		wb_begin_connect(a->socket);
	a->query.n_hops = wb_carried(a);
	a->policy = wb_active_policy();
	if (!a->policy || (wb_is_udp(a) && !(a->policy->flags & WB_WANTS_UDP)))
		return 1;
	answer = wb_judge(a);
	if (a->decision.verdict != WB_REDIRECT || !a->socket)
		return answer;
	a->goes_to = WB_TO_PROXY;
	if (wb_is_udp(a)) {
		own = wb_peers_of(a);
		if (own)
			own->connected = wb_name_peer(&a->query.dst);
	}
	return answer;
}

#endif /* WB_CONNECT_H */
