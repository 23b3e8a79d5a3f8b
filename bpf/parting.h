/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * Partings: the client's socket is closed, and what it has sent waits at the
 * proxy. Who sends a datagram and ends is gone before anybody can read it. So
 * the flow stays for a moment. Nobody comes by when that is over but a timer. It
 * is one for all: the kernel allocates each, and may fail to.
 */
#ifndef WB_PARTING_H
#define WB_PARTING_H

#include "peer.h"

/* How long, in nanoseconds: longer than datagrams wait at a proxy that works, and than it takes to go on with them. */
#define WB_PARTING_TIME 1000000000ULL
#define WB_CLOCK_TICK 100000000ULL

#ifndef CLOCK_MONOTONIC
#define CLOCK_MONOTONIC 1
#endif

static __always_inline bool wb_is_same_peer(const struct wb_peer_key *a, const struct wb_peer_key *b)
{
	return a->netns_cookie == b->netns_cookie && wb_same_endpoint(&a->peer, &b->peer);
}

static __always_inline void wb_forget_source(const struct wb_peer_key *key, const struct wb_peer *peer)
{
	struct wb_peer_key source = { .netns_cookie = key->netns_cookie, .peer = peer->client }, *now;

	now = bpf_map_lookup_elem(&parted_sources, &source);
	if (now && wb_is_same_peer(now, key)) /* another socket may have had the port since */
		bpf_map_delete_elem(&parted_sources, &source);
}

/* End the one that has been parted for the longest. 1: it still has time, or there is none. */
static long wb_clock_step(__u32 i, void *unused)
{
	struct wb_peer_key key;
	struct wb_peer *peer;

	if (bpf_map_peek_elem(&parted, &key))
		return 1;
	peer = bpf_map_lookup_elem(&peers, &key);
	if (peer && bpf_ktime_get_boot_ns() - peer->parted < WB_PARTING_TIME)
		return 1;
	if (bpf_map_pop_elem(&parted, &key))
		return 1;
	if (peer && peer->flags & WB_PEER_CONNECTED)
		wb_forget_source(&key, peer);
	wb_end_peer(&key);
	return 0;
}

static int wb_clock_ticks(void *map, __u32 *zero, struct wb_clock *clock)
{
	struct wb_peer_key key;

	bpf_loop(1 << WB_PARTED_BITS, wb_clock_step, NULL, 0);
	clock->runs = 0; /* before the look at the queue: who comes after it starts the clock */
	if (!bpf_map_peek_elem(&parted, &key) && !__sync_lock_test_and_set(&clock->runs, 1))
		bpf_timer_start(&clock->timer, WB_CLOCK_TICK, 0);
	return 0;
}

/* If it can not be started, the next parting tries again. */
static __always_inline void wb_start_clock(void)
{
	__u32 zero = 0;
	struct wb_clock *clock = bpf_map_lookup_elem(&clocks, &zero);

	if (!clock || clock->runs || __sync_lock_test_and_set(&clock->runs, 1))
		return;
	bpf_timer_init(&clock->timer, &clocks, CLOCK_MONOTONIC); /* the first time */
	if (bpf_timer_set_callback(&clock->timer, wb_clock_ticks) || bpf_timer_start(&clock->timer, WB_CLOCK_TICK, 0))
		clock->runs = 0;
}

/* The client goes on without the flow. A global function, as wb_decide() is. */
__noinline int wb_part(const struct wb_peers *own, __u64 name, __u32 port)
{
	struct wb_peer_key key, source;
	struct wb_peer *peer;

	if (!own)
		return 0;
	wb_peer_key(&key, own, name, port);
	peer = bpf_map_lookup_elem(&peers, &key);
	if (!peer || peer->parted)
		return 0;
	peer->parted = bpf_ktime_get_boot_ns();
	wb_forget_destination(own, peer, name);
	if (peer->flags & WB_PEER_CONNECTED) {
		source = key;
		source.peer = peer->client;
		bpf_map_update_elem(&parted_sources, &source, &key, BPF_ANY);
	}
	if (bpf_map_push_elem(&parted, &key, 0)) {
		wb_forget_source(&key, peer);
		wb_end_peer(&key);
		return 0;
	}
	wb_start_clock();
	return 0;
}

static long wb_part_step(__u32 i, struct wb_peers **owner)
{
	struct wb_peers *own = *owner;

	if (!own->oldest)
		return 1;
	wb_part(own, wb_detach_oldest(own, wb_peer_at(own, own->oldest)), own->port);
	return 0;
}

/* Those of an unconnected socket that is closed, or bound to another port. */
static __always_inline void wb_part_unconnected(struct wb_peers *own)
{
	bpf_loop(WB_MAX_PEERS, wb_part_step, &own, 0);
}

/* The connect() before this one has come to its end. */
static __always_inline void wb_part_connected(struct wb_peers *own)
{
	__u64 name = __sync_lock_test_and_set(&own->connected, 0); /* before it is closed: see wb_meet() */

	if (name)
		wb_part(own, name, own->connected_port);
}

/*
 * The peer of a connected socket, whose datagrams come from `source`. Before the
 * socket sends nobody knows which that is: so it is made when the proxy reads
 * the first one, or at the end of the socket. Should both be at it at once, they
 * write the same draft. NULL: there is no room.
 */
static __noinline struct wb_peer *wb_make_connected(struct bpf_sock *sk, const struct wb_socket *s,
						    const struct wb_peers *own, const struct wb_endpoint *source,
						    const struct wb_peer_key *key)
{
	struct wb_peer *draft = bpf_sk_storage_get(&drafts, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	struct wb_context *context;

	if (!draft)
		return NULL;
	draft->socket = *s;
	__builtin_memcpy(draft->addr, key->peer.addr, sizeof(draft->addr));
	draft->client = *source;
	draft->client.protocol = 0;
	draft->cookie = own->cookie;
	draft->proxy_cgroup = s->by.departure.proxy_cgroup;
	draft->flags = WB_PEER_CONNECTED;
	draft->uid = s->records.origin.uid;
	if (!bpf_map_update_elem(&peers, key, draft, BPF_NOEXIST)) {
		wb_count_of(&peer_users, draft->uid, 1);
		context = s->flags & WB_HAS_CONTEXT ? bpf_sk_storage_get(&socket_contexts, sk, 0, 0) : NULL;
		if (context)
			bpf_map_update_elem(&peer_contexts, key, context, BPF_ANY);
	}
	return bpf_map_lookup_elem(&peers, key);
}

/* What the kernel has made the source of a connected socket's datagrams; the hook may not read it. */
static __always_inline void wb_source_of(struct bpf_sock *sk, bool is4, struct wb_endpoint *source)
{
	struct bpf_sock *held = sk;
	void *address = NULL;
	__u16 port = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &held);
	bpf_probe_read_kernel(&port, sizeof(port), address + bpf_core_field_offset(struct sock, __sk_common.skc_num));
	source->port = bpf_htons(port);
	if (is4) {
		source->addr[2] = bpf_htonl(0xffff);
		bpf_probe_read_kernel(&source->addr[3], sizeof(source->addr[3]),
				      address + bpf_core_field_offset(struct sock, __sk_common.skc_rcv_saddr));
	} else {
		bpf_probe_read_kernel(source->addr, sizeof(source->addr),
				      address + bpf_core_field_offset(struct sock, __sk_common.skc_v6_rcv_saddr));
	}
}

/* A connected socket is closed of which the proxy has read nothing yet: perhaps it will. */
static __noinline void wb_part_unmet(struct bpf_sock *sk, struct wb_peers *own, __u64 name)
{
	struct wb_socket *s = bpf_sk_storage_get(&sockets, sk, 0, 0);
	struct wb_endpoint source = {};
	struct wb_outcome *kept;
	struct wb_peer_key key;
	struct wb_peer *peer;

	if (!s || !wb_is_stamped(s))
		return;
	wb_source_of(sk, wb_is_mapped(s->proxy.addr), &source);
	wb_peer_key(&key, own, name, source.port);
	peer = wb_make_connected(sk, s, own, &source, &key);
	if (!peer || peer->flags & WB_PEER_ARRIVED)
		return;
	kept = bpf_sk_storage_get(&outcomes, sk, 0, 0);
	if (kept)
		bpf_map_update_elem(&parted_outcomes, &key, kept, BPF_ANY);
	own->connected_port = source.port;
}

/* The hook of a socket's end. */
static __always_inline void wb_release(struct bpf_sock *sk)
{
	struct wb_peers *own = bpf_sk_storage_get(&socket_peers, sk, 0, 0);
	__u64 name;

	if (!own)
		return;
	name = *(volatile __u64 *)&own->connected;
	if (name) {
		wb_part_unmet(sk, own, name);            /* if it is none */
		wb_part(own, name, own->connected_port); /* before it is closed: then it is found by its source */
	}
	wb_part_connected(own);
	wb_part_unconnected(own);
}

#endif /* WB_PARTING_H */
