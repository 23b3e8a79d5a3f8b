/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* UDP: datagrams without a connection, on both sides, and the end of sockets. */
#ifndef WB_DATAGRAM_H
#define WB_DATAGRAM_H

#include "connect.h"

static __always_inline bool wb_is_datagram_socket(const struct bpf_sock *sk)
{
	return sk && sk->type == SOCK_DGRAM && sk->protocol == IPPROTO_UDP;
}

/* An answer of the flow's proxy goes to the client's socket. False: it is none. */
static __noinline bool wb_answer_peer(struct wb_attempt *a)
{
	struct wb_peer_key key = { .netns_cookie = bpf_get_netns_cookie(a->ctx), .peer = a->query.dst };
	struct bpf_sock *sk = a->ctx->sk;
	struct wb_peer *peer;

	key.peer.protocol = 0;
	peer = bpf_map_lookup_elem(&peers, &key);
	if (!peer || peer->parted || !sk ||
	    !wb_datagrams_are_of(sk, peer->proxy_cgroup, peer->socket.proxy_cgroup_level))
		return false;
	peer->last = bpf_ktime_get_boot_ns();
	__sync_fetch_and_add(&peer->received, 1);
	a->peer = peer;
	a->goes_to = WB_TO_CLIENT;
	return true;
}

/* Whether a flow can go on as it is. */
static __always_inline bool wb_goes_on(struct wb_attempt *a, const struct wb_peer *peer)
{
	return peer->generation == a->policy->generation && wb_is_of_flow(peer, a) &&
	       wb_probe_receiver(a->ctx, peer->proxy_cgroup, peer->socket.proxy_cgroup_level, &peer->socket.proxy) ==
		       WB_REACHABLE;
}

static __always_inline void wb_send_on(struct wb_attempt *a, struct wb_peer *peer)
{
	peer->last = bpf_ktime_get_boot_ns();
	__sync_fetch_and_add(&peer->sent, 1);
	a->peer = peer;
	a->goes_to = WB_TO_PROXY;
}

/* What a datagram meets that goes on with what there is. False: it has to be decided. */
static __noinline bool wb_send_as_before(struct wb_attempt *a)
{
	struct bpf_sock *sk = a->ctx->sk;
	struct wb_peers *own;
	struct wb_peer *peer;

	if (!sk)
		return true;
	a->socket = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (a->socket && sk->state == BPF_TCP_ESTABLISHED && wb_is_stamped(a->socket)) {
		/* To its peer: answers can come from nowhere else than the proxy's own address. */
		if (wb_hop_is_to(wb_newest_hop(a->socket), &a->query.dst)) {
			a->goes_to = WB_TO_PROXY;
			return true;
		}
		/* Elsewhere: what the socket has taken over is the connection's. */
		a->aside = 1;
		if (a->socket->flags & WB_TOOK_OVER)
			a->socket = NULL;
	}
	own = bpf_sk_storage_get(&socket_peers, sk, 0, 0);
	if (!own)
		return false;
	if (own->n && own->port != bpf_htons(sk->src_port))
		wb_part_unconnected(own); /* their answers go to the port that it had */
	peer = wb_find_peer(own, &a->query.dst);
	if (peer && wb_goes_on(a, peer)) {
		wb_send_on(a, peer);
		return true;
	}
	wb_make_room(own);
	return false;
}

/* The sendmsg hook, which the kernel calls when a destination is given. */
static __always_inline int wb_send(struct bpf_sock_addr *ctx, struct wb_attempt *a)
{
	int answer;

	a->ctx = ctx;
	a->query.self = -1;
	a->query.dst.protocol = IPPROTO_UDP;
	a->datagram = 1;

	if (!wb_is_datagram_socket(ctx->sk))
		return 1;
	a->policy = wb_active_policy();
	if (!a->policy || !(a->policy->flags & WB_WANTS_UDP))
		return 1;
	wb_resolve_any(&a->query.dst);
	if (wb_is_peer_address(a->query.dst.addr)) {
		if (wb_answer_peer(a))
			return 1;
		/* The client is gone, and another socket may have its port. */
		if (wb_current_provider(a->policy) >= 0)
			return wb_refuse(ECONNREFUSED);
	}
	if (!wb_port_is_wanted(a->policy, &a->query.dst) || wb_send_as_before(a))
		return 1;
	a->query.n_hops = wb_carried(a);
	answer = wb_judge(a);
	if (a->decision.verdict == WB_REDIRECT && a->peer)
		wb_send_on(a, a->peer);
	return answer;
}

/* The proxy has read a datagram of the peer's: it comes from there. */
static __always_inline void wb_read_as_peer(struct wb_peer *peer, const struct wb_outcome *kept,
					    struct wb_endpoint *from)
{
	peer->last = bpf_ktime_get_boot_ns();
	__sync_fetch_and_add(&peer->sent, 1);
	wb_arrive_peer(peer, kept);
	__builtin_memcpy(from->addr, peer->addr, sizeof(from->addr));
}

/* A datagram whose sender is gone: see parting.h. */
static __noinline int wb_meet_parted(struct bpf_sock_addr *ctx, const struct wb_endpoint *proxy,
				     struct wb_endpoint *from)
{
	struct wb_peer_key key = { .netns_cookie = bpf_get_netns_cookie(ctx), .peer = *from };
	struct wb_peer_key *parting;
	struct wb_peer *peer;

	key.peer.protocol = 0;
	parting = bpf_map_lookup_elem(&parted_sources, &key);
	if (!parting)
		return 0;
	key = *parting;
	peer = bpf_map_lookup_elem(&peers, &key);
	if (!peer || !wb_same_endpoint(&peer->socket.proxy, proxy))
		return 0;
	wb_read_as_peer(peer, bpf_map_lookup_elem(&parted_outcomes, &key), from);
	return 0;
}

/*
 * The proxy has read a datagram that came from a connected socket: tell the
 * proxy its peer's address. The first time that makes the peer, and there is a
 * flow to tell of.
 */
static __noinline int wb_meet(struct bpf_sock_addr *ctx, const struct wb_provider *p, struct wb_endpoint *from)
{
	const struct wb_endpoint *proxy = wb_proxy_for(p, from);
	struct wb_peer_key key;
	struct wb_peers *own;
	struct wb_socket *s;
	struct wb_peer *peer;
	struct bpf_sock *sk;
	__u64 name;

	if (!proxy->port || !ctx->sk || bpf_htons(ctx->sk->src_port) != proxy->port)
		return 0;
	sk = wb_find_receiver(ctx, proxy, from);
	if (!sk)
		return wb_meet_parted(ctx, proxy, from);
	s = bpf_sk_storage_get(&sockets, sk, 0, 0);
	own = bpf_sk_storage_get(&socket_peers, sk, 0, 0);
	if (!s || !own || sk->state != BPF_TCP_ESTABLISHED || !wb_is_stamped(s) || !wb_same_endpoint(&s->proxy, proxy))
		goto parted;
	name = *(volatile __u64 *)&own->connected;
	if (!name) /* it is just being closed */
		goto parted;
	own->connected_port = from->port;
	wb_peer_key(&key, own, name, from->port);
	peer = bpf_map_lookup_elem(&peers, &key);
	if (!peer)
		peer = wb_make_connected(sk, s, own, from, &key);
	if (!peer)
		goto out;
	wb_read_as_peer(peer, bpf_sk_storage_get(&outcomes, sk, 0, 0), from);
	/* The client may have closed it, or connected anew, before there was anything to take away. */
	if (__sync_fetch_and_add(&own->connected, 0) != name)
		wb_part(own, name, from->port);
out:
	bpf_sk_release(sk);
	return 0;
parted: /* whoever has the port now has not sent it, or will hear no answer */
	bpf_sk_release(sk);
	return wb_meet_parted(ctx, proxy, from);
}

/* A datagram from a peer's address: to the client it comes from where it was sent, and the proxy knows it by that. */
static __always_inline void wb_read_peer(struct bpf_sock_addr *ctx, struct bpf_sock *sk, struct wb_endpoint *from)
{
	struct wb_peer_key key = { .netns_cookie = bpf_get_netns_cookie(ctx), .peer = *from };
	struct wb_peer *peer;

	key.peer.protocol = 0;
	key.peer.port = bpf_htons(sk->src_port);
	peer = bpf_map_lookup_elem(&peers, &key);
	if (peer && peer->cookie == bpf_get_socket_cookie(ctx) && from->port == peer->socket.proxy.port) {
		wb_hop_dst(wb_newest_hop(&peer->socket), from);
		return;
	}
	key.peer.port = from->port;
	peer = bpf_map_lookup_elem(&peers, &key);
	if (peer && wb_datagrams_are_of(sk, peer->proxy_cgroup, peer->socket.proxy_cgroup_level))
		wb_arrive_peer(peer, NULL);
}

/* A proxy that answers from a connected socket of its own: which flow it means is clear if there is but one. */
static __always_inline bool wb_read_only_peer(const struct wb_peers *own, struct wb_endpoint *from)
{
	struct wb_peer *peer = own->n == 1 ? wb_peer_at(own, own->oldest) : NULL;

	if (!peer || !(peer->flags & WB_PEER_TAKEN) || !wb_same_endpoint(&peer->socket.proxy, from))
		return false;
	wb_hop_dst(wb_newest_hop(&peer->socket), from);
	return true;
}

/* The recvmsg hook: `from` is where a datagram came from, as its reader is to see it. */
static __always_inline void wb_receive(struct bpf_sock_addr *ctx, struct wb_endpoint *from)
{
	const struct wb_policy *policy = wb_active_policy();
	struct bpf_sock *sk = ctx->sk;
	struct wb_peers *own;
	struct wb_socket *s;
	int self;

	if (!policy || !(policy->flags & WB_WANTS_UDP) || !sk || !wb_is_datagram_socket(sk))
		return;
	from->protocol = IPPROTO_UDP;
	if (wb_is_peer_address(from->addr)) {
		wb_read_peer(ctx, sk, from);
		return;
	}
	if (sk->state == BPF_TCP_ESTABLISHED) {
		s = bpf_sk_storage_get(&sockets, sk, 0, 0);
		if (s && wb_is_stamped(s) && wb_same_endpoint(from, &s->proxy))
			wb_hop_dst(wb_newest_hop(s), from);
		return;
	}
	own = bpf_sk_storage_get(&socket_peers, sk, 0, 0);
	if (own && wb_read_only_peer(own, from))
		return;
	self = wb_current_provider(policy);
	if (self >= 0)
		wb_meet(ctx, wb_provider_at(policy, self), from);
}

/* Nobody but the hooks uses the peers' addresses: who had one could pass for a flow's other end. */
static __always_inline int wb_bind(struct bpf_sock_addr *ctx, bool is_peer_address)
{
	return is_peer_address && wb_is_datagram_socket(ctx->sk) ? wb_refuse(EADDRNOTAVAIL) : 1;
}

#endif /* WB_DATAGRAM_H */
