/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * The hand-over: records leave the connecting socket before the SYN and reach
 * the accepted socket before accept() can return it.
 */
#ifndef WB_FLIGHT_H
#define WB_FLIGHT_H

#include "candidate.h"
#include "event.h"
#include "process.h"
#include "records.h"

static __always_inline void wb_set_mapped(__be32 *addr, __be32 ip4)
{
	addr[0] = 0;
	addr[1] = 0;
	addr[2] = bpf_htonl(0xffff);
	addr[3] = ip4;
}

/*
 * The 4-tuple of a socket as its own side sees it. The addresses of both
 * families are read before the branch, each by a volatile access of its own:
 * clang would merge reads in two branches into one from a computed address,
 * and the verifier refuses a context pointer that was added to.
 */
static __always_inline bool wb_tuple(struct bpf_sock_ops *ctx, struct wb_flight_key *key)
{
	volatile struct bpf_sock_ops *c = ctx;
	__be32 local_ip4 = c->local_ip4;
	__be32 remote_ip4 = c->remote_ip4;

	for (int i = 0; i < 4; i++) {
		key->local.addr[i] = c->local_ip6[i];
		key->remote.addr[i] = c->remote_ip6[i];
	}
	if (ctx->family == AF_INET) {
		wb_set_mapped(key->local.addr, local_ip4);
		wb_set_mapped(key->remote.addr, remote_ip4);
	} else if (ctx->family != AF_INET6) {
		return false;
	}
	key->netns_cookie = bpf_get_netns_cookie(ctx);
	key->local.port = bpf_htons(ctx->local_port);
	key->remote.port = bpf_htons(bpf_ntohl(ctx->remote_port));
	return true;
}

/* uid: of the entry's origin. */
static __always_inline bool wb_take_from_flight(const struct wb_flight_key *key, __u32 uid)
{
	/* Only one of several that race deletes the entry, so the counts stay true. */
	if (bpf_map_delete_elem(&inflight, key))
		return false;
	__sync_fetch_and_add(&inflight_used, -1);
	wb_count_of(&inflight_users, uid, -1);
	bpf_map_delete_elem(&inflight_contexts, key);
	return true;
}

/*
 * Put the records into the map. An entry that is already there is left over
 * from the same address pair: replace it. The count goes up first, so that it
 * never falls below zero when another CPU takes the entry at once.
 */
static __always_inline bool wb_put_in_flight(const struct wb_flight_key *key, struct wb_socket *s)
{
	struct wb_socket *old = bpf_map_lookup_elem(&inflight, key);

	if (old && wb_take_from_flight(key, old->records.origin.uid))
		wb_count(WB_ABANDONED);
	__sync_fetch_and_add(&inflight_used, 1);
	wb_count_of(&inflight_users, s->records.origin.uid, 1);
	if (!bpf_map_update_elem(&inflight, key, s, BPF_NOEXIST))
		return true;
	__sync_fetch_and_add(&inflight_used, -1);
	wb_count_of(&inflight_users, s->records.origin.uid, -1);
	return false;
}

/* TCP_CONNECT_CB: the source port is chosen, the SYN is not sent. */
static __always_inline void wb_depart(struct bpf_sock_ops *ctx)
{
	struct wb_flight_key key = {};
	struct bpf_sock *sk = ctx->sk;
	struct wb_context *context;
	struct wb_socket *s;

	if (!sk)
		return;
	s = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (!s || s->role != WB_CONNECTS || !s->records.n_hops)
		return;
	/* So that wb_close() hears of the end, whatever it is. */
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	if (!wb_is_stamped(s) || !wb_tuple(ctx, &key))
		return;
	/* A program that runs after ours sent the connection elsewhere: it does not go to the proxy. */
	if (!wb_same_endpoint(&key.remote, &s->proxy)) {
		wb_forget_stamp(s);
		wb_count(WB_DIVERTED);
		return;
	}
	s->by.departure.cookie = bpf_get_socket_cookie(ctx);
	if (!wb_put_in_flight(&key, s)) {
		wb_count(WB_LOST);
		return;
	}
	if (s->flags & WB_HAS_CONTEXT) {
		context = bpf_sk_storage_get(&socket_contexts, sk, 0, 0);
		if (context)
			bpf_map_update_elem(&inflight_contexts, &key, context, BPF_ANY);
	}
	wb_count(WB_DEPARTED);
}

/* PASSIVE_ESTABLISHED_CB: the accepted socket exists, and its lock keeps getsockopt() waiting. */
static __always_inline void wb_arrive(struct bpf_sock_ops *ctx)
{
	struct wb_flight_key seen = {}, key;
	struct bpf_sock *sk = ctx->sk;
	struct wb_socket *s, *accepted;
	struct wb_context *context;

	if (!sk || !wb_tuple(ctx, &seen))
		return;
	key = (struct wb_flight_key){
		.netns_cookie = seen.netns_cookie,
		.local = seen.remote,
		.remote = seen.local,
	};
	s = bpf_map_lookup_elem(&inflight, &key);
	if (!s)
		return;
	/* The proxy died after we looked, or shares its port: the records are not for whoever it is. */
	if (!wb_socket_is_of(sk, s->by.departure.proxy_cgroup, s->proxy_cgroup_level)) {
		wb_count(WB_INTERCEPTED);
		return;
	}
	accepted = bpf_sk_storage_get(&sockets, sk, s, BPF_SK_STORAGE_GET_F_CREATE);
	/* Should the entry have been taken and used again while we copied it, it is another connection's. */
	if (accepted && accepted->by.departure.cookie != *(volatile __u64 *)&s->by.departure.cookie) {
		bpf_sk_storage_delete(&sockets, sk);
		wb_count(WB_LOST);
		return;
	}
	if (accepted) {
		wb_report_accepted(accepted);
		accepted->role = WB_ACCEPTED;
		accepted->carried = accepted->records.n_hops;
		/* So that wb_close() hears of its end, until which it can be forwarded. */
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
		wb_list_candidate(accepted);
		if (accepted->flags & WB_HAS_CONTEXT) {
			context = bpf_map_lookup_elem(&inflight_contexts, &key);
			if (context)
				bpf_sk_storage_get(&socket_contexts, sk, context, BPF_SK_STORAGE_GET_F_CREATE);
		}
		/* The client's reset may have taken it back meanwhile. */
		if (!wb_take_from_flight(&key, accepted->records.origin.uid))
			return;
		wb_count(WB_ARRIVED);
		wb_count_provider(wb_newest_hop(accepted)->handle, WB_PROVIDER_ARRIVED);
	} else if (wb_take_from_flight(&key, s->records.origin.uid)) {
		wb_count(WB_LOST);
		wb_count(WB_ABANDONED);
	}
}

/*
 * STATE_CB to TCP_CLOSE on the connecting side: what has not arrived by now
 * never will. tcp_set_state() calls us before the socket loses its addresses.
 */
static __always_inline void wb_abandon(struct bpf_sock_ops *ctx, struct wb_socket *s)
{
	struct wb_flight_key key = {};
	struct wb_socket *flying;

	if (!wb_tuple(ctx, &key))
		return;
	flying = bpf_map_lookup_elem(&inflight, &key);
	if (flying && flying->by.departure.cookie == s->by.departure.cookie &&
	    wb_take_from_flight(&key, s->records.origin.uid))
		wb_count(WB_ABANDONED);
}

static __always_inline void wb_close(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct wb_socket *s;

	if (!sk)
		return;
	s = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (!s || !s->records.n_hops)
		return;
	if (s->role == WB_ACCEPTED) {
		wb_unlist_candidate(s);
		return;
	}
	wb_report_closed(ctx, sk, s);
	if (!wb_is_stamped(s))
		return;
	if (wb_was_reset(sk))
		wb_count_provider(wb_newest_hop(s)->handle, WB_PROVIDER_RESET);
	wb_abandon(ctx, s);
	/* The socket may be used again: for another SET, another connect(). */
	wb_forget_stamp(s);
}

#endif /* WB_FLIGHT_H */
