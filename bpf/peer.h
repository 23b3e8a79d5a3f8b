/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * Peers: the flows of UDP. A client's socket can talk to many destinations,
 * all of which its provider's proxy has to tell apart, and their answers too.
 * So each flow has a name, and its name an address. Datagrams of an unconnected
 * socket travel with that as their source, and so do the answers. Those of a
 * connected one have to travel between its own address and the proxy's; the
 * proxy's recvmsg() shows it the name's address instead.
 *
 * The hooks of one socket hold its lock, so what belongs to a client's socket
 * needs no other. Only the peer of a connected one is made by the proxy: see
 * wb_meet().
 */
#ifndef WB_PEER_H
#define WB_PEER_H

#include "attempt.h"
#include "candidate.h"
#include "event.h"

#define WB_NAME_IS_V6 (1ULL << 63)

/* A socket that has as many peers as it may gets another in the place of one that has been idle for so long. */
#define WB_PEER_IDLE (60 * 1000000000ULL)

static const struct wb_peer wb_new_peer;

static __always_inline __u64 wb_name_peer(const struct wb_endpoint *dst)
{
	__u64 name = __sync_fetch_and_add(&peers_named, 1) + 1;

	return wb_is_mapped(dst->addr) ? name : name | WB_NAME_IS_V6;
}

/*
 * The address of a name. Of IPv4 it is in the upper half of 127.0.0.0/8, which
 * is local and of which nobody makes use. IPv6 has one loopback address only:
 * there it is in a prefix that no link has, and never a destination on the way.
 */
static __always_inline void wb_peer_address(__u64 name, __be32 *addr)
{
	if (name & WB_NAME_IS_V6) {
		addr[0] = bpf_htonl(0xfd776179);
		addr[1] = bpf_htonl(0x62696c6c);
		addr[2] = bpf_htonl((__u32)(name >> 32) & 0x7fffffff);
		addr[3] = bpf_htonl((__u32)name);
	} else {
		addr[0] = 0;
		addr[1] = 0;
		addr[2] = bpf_htonl(0xffff);
		addr[3] = bpf_htonl(0x7f800000 | ((__u32)name & 0x7fffff));
	}
}

static __always_inline bool wb_is_peer_ip4(__be32 ip4)
{
	return (ip4 & bpf_htonl(0xff800000)) == bpf_htonl(0x7f800000);
}

static __always_inline bool wb_is_peer_address(const __be32 *addr)
{
	if (wb_is_mapped(addr))
		return wb_is_peer_ip4(addr[3]);
	return addr[0] == bpf_htonl(0xfd776179) && addr[1] == bpf_htonl(0x62696c6c);
}

static __always_inline void wb_peer_key(struct wb_peer_key *key, const struct wb_peers *own, __u64 name, __be16 port)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->netns_cookie = own->netns_cookie;
	wb_peer_address(name, key->peer.addr);
	key->peer.port = port;
}

static __always_inline struct wb_peer *wb_peer_at(const struct wb_peers *own, __u64 name)
{
	struct wb_peer_key key;

	wb_peer_key(&key, own, name, own->port);
	return bpf_map_lookup_elem(&peers, &key);
}

/*
 * Whether a process of this cgroup, or below it, created the UDP socket. No
 * helper leads from one to its struct sock, but the address of the one is that
 * of the other.
 */
static __noinline bool wb_datagrams_are_of(struct bpf_sock *sk, __u64 id, __u32 level)
{
	struct wb_cgroup c = {};
	struct bpf_sock *held = sk;
	struct kernfs_node *kn = NULL;
	void *address = NULL;

	bpf_probe_read_kernel(&address, sizeof(address), &held);
	bpf_probe_read_kernel(&c.cgroup, sizeof(c.cgroup),
			      address + bpf_core_field_offset(struct sock, sk_cgrp_data.cgroup));
	if (!c.cgroup)
		return false;
	bpf_probe_read_kernel(&c.level, sizeof(c.level),
			      (void *)c.cgroup + bpf_core_field_offset(struct cgroup, level));
	bpf_probe_read_kernel(&kn, sizeof(kn), (void *)c.cgroup + bpf_core_field_offset(struct cgroup, kn));
	if (!kn)
		return false;
	bpf_probe_read_kernel(&c.id, sizeof(c.id), (void *)kn + bpf_core_field_offset(struct kernfs_node, id));
	return wb_is_in_cgroup(&c, id, level);
}

/* The flow's proxy has read a datagram of it. The first time there is something to tell, and more if it was `kept`. */
static __always_inline void wb_arrive_peer(struct wb_peer *peer, const struct wb_outcome *kept)
{
	if (peer->flags & WB_PEER_ARRIVED || __sync_fetch_and_or(&peer->flags, WB_PEER_ARRIVED) & WB_PEER_ARRIVED)
		return;
	if (kept)
		wb_report_kept(kept);
	wb_report_accepted(&peer->socket);
	wb_list_candidate(&peer->socket);
	wb_count_provider(wb_newest_hop(&peer->socket)->handle, WB_PROVIDER_ARRIVED);
}

static __always_inline void wb_destination_key(struct wb_destination_key *key, const struct wb_peers *own,
					       const struct wb_endpoint *dst)
{
	key->cookie = own->cookie;
	key->dst = *dst;
	key->dst.protocol = 0;
	key->reserved = 0;
}

/* The destination is free for a later flow of the same socket. */
static __always_inline void wb_forget_destination(const struct wb_peers *own, const struct wb_peer *peer, __u64 name)
{
	struct wb_destination_key destination;
	struct wb_endpoint dst;
	__u64 *named;

	wb_hop_dst(wb_newest_hop(&peer->socket), &dst);
	wb_destination_key(&destination, own, &dst);
	named = bpf_map_lookup_elem(&destinations, &destination);
	if (named && *named == name) /* a later flow may have it by now */
		bpf_map_delete_elem(&destinations, &destination);
}

/* The flow is over, if ever it was one. A global function, as wb_decide() is. */
__noinline int wb_end_peer(const struct wb_peer_key *of)
{
	struct wb_peer_key key;
	struct wb_peer *peer;

	if (!of)
		return 0;
	key = *of;
	peer = bpf_map_lookup_elem(&peers, &key);
	if (!peer)
		return 0;
	if (!(peer->flags & WB_PEER_CONNECTED) || peer->flags & WB_PEER_ARRIVED)
		wb_report_peer_closed(peer);
	wb_unlist_candidate(&peer->socket);
	wb_count_of(&peer_users, peer->uid, -1);
	bpf_map_delete_elem(&peer_contexts, &key);
	bpf_map_delete_elem(&parted_outcomes, &key);
	/* As in wb_unlist_candidate(). */
	if (bpf_map_delete_elem(&peers, &key) == -EBUSY)
		bpf_map_delete_elem(&peers, &key);
	return 0;
}

static __always_inline void wb_append_peer(struct wb_peers *own, __u64 name)
{
	struct wb_peer *last = own->youngest ? wb_peer_at(own, own->youngest) : NULL;

	if (last)
		last->next = name;
	else
		own->oldest = name;
	own->youngest = name;
	own->n++;
}

/* Take the oldest peer out of the list. */
static __always_inline __u64 wb_detach_oldest(struct wb_peers *own, const struct wb_peer *oldest)
{
	__u64 name = own->oldest;

	own->oldest = oldest ? oldest->next : 0;
	if (!own->oldest)
		own->youngest = 0;
	own->n--;
	return name;
}

/* Make room for a peer: look at some of the oldest for one that is idle. 1: there is room. */
static long wb_evict_step(__u32 i, struct wb_peers **owner)
{
	struct wb_peers *own = *owner;
	struct wb_peer_key key;
	struct wb_peer *oldest;
	bool idle;
	__u64 name;

	if (own->n < WB_MAX_PEERS)
		return 1;
	oldest = wb_peer_at(own, own->oldest);
	idle = !oldest || bpf_ktime_get_boot_ns() - oldest->last > WB_PEER_IDLE;
	name = wb_detach_oldest(own, oldest);
	if (idle && oldest) {
		wb_forget_destination(own, oldest, name);
		wb_peer_key(&key, own, name, own->port);
		wb_end_peer(&key);
	} else if (oldest) {
		oldest->next = 0;
		wb_append_peer(own, name);
	}
	return 0;
}

/* Early, where little of the stack is in use. */
static __always_inline void wb_make_room(struct wb_peers *own)
{
	if (own->n >= WB_MAX_PEERS)
		bpf_loop(WB_EVICTIONS, wb_evict_step, &own, 0);
}

/* What the attempt's socket knows of its peers. Each word is read by an access of its own: see wb_tuple(). */
static __always_inline struct wb_peers *wb_peers_of(struct wb_attempt *a)
{
	struct bpf_sock *sk = a->ctx->sk;
	struct wb_peers *own;

	if (!sk)
		return NULL;
	own = bpf_sk_storage_get(&socket_peers, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!own)
		return NULL;
	own->cookie = bpf_get_socket_cookie(a->ctx);
	own->netns_cookie = bpf_get_netns_cookie(a->ctx);
	return own;
}

/* Where the socket takes answers that come from this machine. */
static __always_inline void wb_note_bound(struct wb_peers *own, struct bpf_sock *sk)
{
	volatile struct bpf_sock *v = sk;
	__be32 ip4 = v->src_ip4;

	own->port = bpf_htons(v->src_port);
	own->addr[0] = v->src_ip6[0];
	own->addr[1] = v->src_ip6[1];
	own->addr[2] = v->src_ip6[2];
	own->addr[3] = v->src_ip6[3];
	if (v->family == AF_INET)
		own->addr[3] = ip4;
}

static __always_inline void wb_client_of(const struct wb_peers *own, const struct wb_endpoint *dst,
					 struct wb_endpoint *client)
{
	bool is4 = wb_is_mapped(dst->addr);

	client->addr[0] = is4 ? 0 : own->addr[0];
	client->addr[1] = is4 ? 0 : own->addr[1];
	client->addr[2] = is4 ? bpf_htonl(0xffff) : own->addr[2];
	client->addr[3] = own->addr[3];
	client->port = own->port;
	client->protocol = 0;
	wb_resolve_any(client);
}

/* The socket's peer for a destination. */
static __noinline struct wb_peer *wb_find_peer(const struct wb_peers *own, const struct wb_endpoint *dst)
{
	struct wb_destination_key destination;
	__u64 *name;

	wb_destination_key(&destination, own, dst);
	name = bpf_map_lookup_elem(&destinations, &destination);
	return name ? wb_peer_at(own, *name) : NULL;
}

/* Keep the filter's context with the flow. */
static __always_inline bool wb_attach_peer_context(const struct wb_policy *policy, __u32 filter,
						   const struct wb_peer_key *key, struct wb_peer *peer)
{
	struct wb_context_key from = { .generation = policy->generation, .filter = filter };
	struct wb_context *context;

	if (filter >= WB_MAX_FILTERS || !(policy->filters[filter].flags & WB_FILTER_HAS_CONTEXT))
		return true;
	context = bpf_map_lookup_elem(&contexts, &from);
	if (!context || bpf_map_update_elem(&peer_contexts, key, context, BPF_ANY))
		return false;
	peer->socket.flags |= WB_HAS_CONTEXT;
	return true;
}

/* Whether the peer was made for the flow that the socket carries, if it carries any. */
static __always_inline bool wb_is_of_flow(const struct wb_peer *peer, const struct wb_attempt *a)
{
	const struct wb_socket *carrier = a->socket;

	if (!carrier || !carrier->carried || a->policy->flags & WB_TRACKING_OFF)
		return !peer->socket.carried;
	return carrier->carried == peer->socket.carried &&
	       carrier->records.origin.flow_id == peer->socket.records.origin.flow_id;
}

/* Give the peer to a provider: it begins with what the socket carries. */
static __always_inline void wb_begin_peer(struct wb_peer *peer, const struct wb_policy *policy,
					  const struct wb_provider *p, const struct wb_socket *carrier)
{
	peer->socket.carried = 0;
	peer->socket.flags = 0;
	if (carrier && carrier->carried) {
		peer->socket.records = carrier->records;
		peer->socket.carried = carrier->carried;
	}
	peer->socket.records.n_hops = peer->socket.carried;
	peer->socket.role = WB_CONNECTS;
	peer->proxy_cgroup = p->cgroup;
	peer->generation = policy->generation;
}

/*
 * A new peer of the socket, for the provider that was chosen. `carrier` has the
 * records that the socket carries; NULL: none. Two peers with the same address
 * are eight million others apart. A global function, as wb_decide() is.
 */
__noinline int wb_make_peer(const struct wb_policy *policy, const struct wb_query *query, const struct wb_decision *d,
			    struct wb_peers *own, const struct wb_socket *carrier)
{
	struct wb_destination_key destination;
	struct wb_peer_key key;
	struct wb_peer *peer;
	__u64 name;

	if (!policy || !query || !d || !own)
		return WB_REFUSED_NO_MEMORY;
	if (own->n >= WB_MAX_PEERS)
		return WB_REFUSED_PEERS_FULL;
	name = wb_name_peer(&query->dst);
	wb_peer_key(&key, own, name, own->port);
	if (bpf_map_update_elem(&peers, &key, &wb_new_peer, BPF_NOEXIST))
		return WB_REFUSED_NO_MEMORY;
	peer = bpf_map_lookup_elem(&peers, &key);
	if (!peer)
		return WB_REFUSED_NO_MEMORY;
	wb_client_of(own, &query->dst, &peer->client);
	__builtin_memcpy(peer->addr, key.peer.addr, sizeof(peer->addr));
	peer->cookie = own->cookie;
	peer->uid = own->uid;
	wb_begin_peer(peer, policy, wb_provider_at(policy, d->provider), carrier);
	wb_destination_key(&destination, own, &query->dst);
	if (!wb_attach_peer_context(policy, d->filter, &key, peer) ||
	    bpf_map_update_elem(&destinations, &destination, &name, BPF_ANY)) {
		bpf_map_delete_elem(&peer_contexts, &key);
		bpf_map_delete_elem(&peers, &key);
		return WB_REFUSED_NO_MEMORY;
	}
	wb_count_of(&peer_users, peer->uid, 1);
	wb_append_peer(own, name);
	return WB_REACHABLE;
}

/* The flow goes on with another provider. */
__noinline int wb_switch_peer(const struct wb_policy *policy, const struct wb_decision *d, const struct wb_peers *own,
			      struct wb_peer *peer, const struct wb_socket *carrier)
{
	struct wb_peer_key key = {};

	if (!policy || !d || !own || !peer)
		return WB_REFUSED_NO_MEMORY;
	wb_unlist_candidate(&peer->socket);
	peer->flags = 0;
	wb_begin_peer(peer, policy, wb_provider_at(policy, d->provider), carrier);
	key.netns_cookie = own->netns_cookie;
	__builtin_memcpy(key.peer.addr, peer->addr, sizeof(peer->addr));
	key.peer.port = own->port;
	return wb_attach_peer_context(policy, d->filter, &key, peer) ? WB_REACHABLE : WB_REFUSED_NO_MEMORY;
}

/*
 * A process of the flow's provider connects to the peer: its socket gets the
 * records, as an accepted one. False: there is no such peer, or it is not for
 * this process.
 */
static __noinline bool wb_accept_peer(struct wb_attempt *a)
{
	struct wb_peer_key key = { .netns_cookie = bpf_get_netns_cookie(a->ctx), .peer = a->query.dst };
	struct bpf_sock *sk = a->ctx->sk;
	struct wb_context *context;
	struct wb_socket *accepted;
	struct wb_peer *peer;

	key.peer.protocol = 0;
	peer = bpf_map_lookup_elem(&peers, &key);
	if (!peer || !sk || !wb_datagrams_are_of(sk, peer->proxy_cgroup, peer->socket.proxy_cgroup_level))
		return false;
	accepted = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!accepted)
		return false;
	*accepted = peer->socket;
	accepted->role = WB_ACCEPTED;
	accepted->carried = accepted->records.n_hops;
	bpf_sk_storage_delete(&socket_contexts, sk);
	if (accepted->flags & WB_HAS_CONTEXT) {
		context = bpf_map_lookup_elem(&peer_contexts, &key);
		if (context)
			bpf_sk_storage_get(&socket_contexts, sk, context, BPF_SK_STORAGE_GET_F_CREATE);
	}
	if (bpf_htons(sk->src_port) == peer->socket.proxy.port)
		__sync_fetch_and_or(&peer->flags, WB_PEER_TAKEN);
	/* The address that is on the way, for what the client sends to reach this socket. */
	if (peer->flags & WB_PEER_CONNECTED || !wb_is_mapped(key.peer.addr))
		a->goes_to = WB_TO_CLIENT;
	a->peer = peer;
	return true;
}

#endif /* WB_PEER_H */
