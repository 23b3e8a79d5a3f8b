/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
#ifndef WB_MAPS_H
#define WB_MAPS_H

#include "abi.h"

/* Set by the loader. */
const volatile __u32 page_size = 4096;
const volatile __u32 inflight_limit = 8192;

/* Entries in `inflight`, counted where they are made and deleted: a hash map does not tell its size. */
__u64 inflight_used;

struct wb_policy_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wb_policy);
};

/*
 * The policy. Replacing the inner map is what makes Apply atomic: a program
 * that has looked it up keeps the old one to its end, and the system call
 * returns when no program uses the old one any more.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct wb_policy_map);
} policies SEC(".maps");

/* The classes of every dimension, of the policy in force and of one that is coming or going. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__type(key, struct wb_class_key);
	__type(value, struct wb_set);
} classes SEC(".maps");

/*
 * The ancestors of the cgroups that flows started in: when a proxy connects,
 * nothing else in the kernel leads from the id in the records to them. An entry
 * that is evicted comes back with its cgroup's next flow.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct wb_lineage);
} lineages SEC(".maps");

/* Contexts of the filters that have one. The generation in the key keeps two policies apart during Apply. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * WB_MAX_FILTERS);
	__type(key, struct wb_context_key);
	__type(value, struct wb_context);
} contexts SEC(".maps");

/* The records of each redirected or redirecting socket. They live and die with it. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct wb_socket);
} sockets SEC(".maps");

/* The context of the newest hop, apart from the records because few have one. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct wb_context);
} socket_contexts SEC(".maps");

/* Records between connect() and the proxy's end of the handshake. The loader sets the size. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct wb_flight_key);
	__type(value, struct wb_socket);
} inflight SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8192);
	__type(key, struct wb_flight_key);
	__type(value, struct wb_context);
} inflight_contexts SEC(".maps");

/* Connections that proxies have accepted, as their own sockets are described. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 18);
	__type(key, struct wb_candidate_key);
	__type(value, struct wb_socket);
} candidates SEC(".maps");

/* Never deleted, so that nobody can count in one that is gone: destinations share them by hash. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << WB_QUEUE_BITS);
	__type(key, __u32);
	__type(value, struct wb_queue);
} queues SEC(".maps");

/* Entries in `inflight` by the user at the start of the flow; users share counts by hash. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << WB_USER_BITS);
	__type(key, __u32);
	__type(value, __u64);
} inflight_users SEC(".maps");

/* The flows of UDP, as their proxies know them. They go when the client's socket is closed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << WB_PEER_BITS);
	__type(key, struct wb_peer_key);
	__type(value, struct wb_peer);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << WB_PEER_BITS);
	__type(key, struct wb_peer_key);
	__type(value, struct wb_context);
} peer_contexts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << WB_PEER_BITS);
	__type(key, struct wb_destination_key);
	__type(value, __u64);
} destinations SEC(".maps");

/* Peers whose clients are gone, the longest gone first. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1 << WB_PARTED_BITS);
	__type(value, struct wb_peer_key);
} parted SEC(".maps");

/* Those of them whose sockets were connected, by the source that their datagrams have on the way. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << WB_PARTED_BITS);
	__type(key, struct wb_peer_key);
	__type(value, struct wb_peer_key);
} parted_sources SEC(".maps");

/* One. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wb_clock);
} clocks SEC(".maps");

/* What is told of one of them whose socket was connected, if something of it is read yet. By peer. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << WB_PARTED_BITS);
	__type(key, struct wb_peer_key);
	__type(value, struct wb_outcome);
} parted_outcomes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct wb_peers);
} socket_peers SEC(".maps");

/* The peer of a connected socket as it is going to be: what stands in `peers` is whole from the first. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct wb_peer);
} drafts SEC(".maps");

/* What is told of a connected socket of UDP once it has sent something. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct wb_outcome);
} outcomes SEC(".maps");

/*
 * What was told of datagrams that did not go to a proxy. One that is evicted is
 * told again.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct wb_destination_key);
	__type(value, struct wb_told);
} told SEC(".maps");

/* The sources of what leaves for each prefix: user space asks the kernel, which lets no hook of ours do so. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 14);
	__type(key, struct wb_source_key);
	__type(value, struct wb_source);
} sources SEC(".maps");

/* Until when those of a network namespace count, in nanoseconds since boot: nobody may be left who follows the routes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, __u64);
} sources_until SEC(".maps");

/* Entries in `peers` by the user whose program made them; users share counts by hash. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << WB_USER_BITS);
	__type(key, __u32);
	__type(value, __u64);
} peer_users SEC(".maps");

/* The number that the last peer was named by. */
__u64 peers_named;

/* The key of the seal. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wb_key);
} keys SEC(".maps");

/* What happened, for user space. A full ring is counted and waits for nobody. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} events SEC(".maps");

/* Read by user space before it adopts pinned maps. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wb_meta);
} meta SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WB_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* By handle. Apply makes and deletes the entries. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 2 * WB_MAX_PROVIDERS);
	__type(key, __u64);
	__type(value, struct wb_provider_counts);
} provider_counters SEC(".maps");

static __always_inline void wb_add(enum wb_counter counter, __u64 n)
{
	__u32 key = counter;
	__u64 *value = bpf_map_lookup_elem(&counters, &key);

	/* Per CPU, but a program can be preempted by another on its CPU: the add must be one instruction. */
	if (value)
		__sync_fetch_and_add(value, n);
}

static __always_inline void wb_count(enum wb_counter counter)
{
	wb_add(counter, 1);
}

static __always_inline void wb_count_provider(__u64 handle, enum wb_provider_counter counter)
{
	struct wb_provider_counts *counts = bpf_map_lookup_elem(&provider_counters, &handle);

	if (counts)
		__sync_fetch_and_add(&counts->n[counter], 1);
}

/* What a user has in use of what is shared: one of the maps above. */
static __always_inline __u64 *wb_user_count(void *users, __u32 uid)
{
	__u32 slot = uid * 2654435761U >> (32 - WB_USER_BITS);

	return bpf_map_lookup_elem(users, &slot);
}

static __always_inline void wb_count_of(void *users, __u32 uid, __s64 n)
{
	__u64 *used = wb_user_count(users, uid);

	if (used)
		__sync_fetch_and_add(used, n);
}

static __always_inline const struct wb_policy *wb_active_policy(void)
{
	__u32 zero = 0;
	void *inner = bpf_map_lookup_elem(&policies, &zero);

	return inner ? bpf_map_lookup_elem(inner, &zero) : NULL;
}

#endif /* WB_MAPS_H */
