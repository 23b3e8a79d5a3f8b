/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * Inheritance: proxies that never set records. A connection that a proxy
 * accepted is a candidate until it is forwarded or closed. When a process of
 * the same provider dials the candidate's original destination on a socket
 * without records, that connection forwards it, and takes over its records.
 */
#ifndef WB_CANDIDATE_H
#define WB_CANDIDATE_H

#include "policy.h"
#include "records.h"

/* How many tickets back a candidate is still looked for. Older ones wait for something else than their turn. */
#define WB_WINDOW 512

/* How often to begin anew when another CPU takes the candidate first. */
#define WB_TRIES 4

/* Is 0, but the verifier does not know. */
__u32 wb_unknown_zero;

static __always_inline __u32 wb_queue_number(const struct wb_endpoint *dst)
{
	__u64 hash = ((__u64)dst->addr[0] << 32 | dst->addr[1]) * 0x9e3779b97f4a7c15ULL;

	hash = (hash ^ ((__u64)dst->addr[2] << 32 | dst->addr[3])) * 0xff51afd7ed558ccdULL;
	hash = (hash ^ hash >> 29 ^ dst->port) * 0xc4ceb9fe1a85ec53ULL;
	return hash >> (64 - WB_QUEUE_BITS);
}

static __always_inline void wb_candidate_key(const struct wb_socket *s, struct wb_candidate_key *key)
{
	struct wb_endpoint dst;

	wb_hop_dst(wb_newest_hop(s), &dst);
	key->queue = wb_queue_number(&dst);
	key->ticket = s->by.arrival.ticket;
	key->reserved = 0;
}

static __always_inline void wb_remove_candidate(const struct wb_candidate_key *key)
{
	struct wb_queue *queue = bpf_map_lookup_elem(&queues, &key->queue);

	/* Only one of several that race deletes it, so the count stays true. */
	if (!bpf_map_delete_elem(&candidates, key) && queue)
		__sync_fetch_and_add(&queue->open, -1);
}

/* Make an accepted connection a candidate. The count goes up first: it never says that there is none while there is one. */
static __always_inline void wb_list_candidate(struct wb_socket *accepted)
{
	struct wb_candidate_key key;
	struct wb_queue *queue;

	accepted->by.arrival.ticket = 0;
	accepted->by.arrival.asked_by = 0;
	accepted->by.arrival.reserved = 0;
	wb_candidate_key(accepted, &key);
	queue = bpf_map_lookup_elem(&queues, &key.queue);
	if (!queue)
		return;
	key.ticket = accepted->by.arrival.ticket = __sync_fetch_and_add(&queue->tickets, 1);
	__sync_fetch_and_add(&queue->open, 1);
	if (bpf_map_update_elem(&candidates, &key, accepted, BPF_NOEXIST)) {
		__sync_fetch_and_add(&queue->open, -1);
		wb_count(WB_UNLISTED);
		return;
	}
	accepted->flags |= WB_LISTED;
}

static __always_inline void wb_unlist_candidate(const struct wb_socket *accepted)
{
	struct wb_candidate_key key;

	if (!(accepted->flags & WB_LISTED))
		return;
	wb_candidate_key(accepted, &key);
	wb_remove_candidate(&key);
}

/* Note which thread asks where the connection wanted to go: it is about to forward it. */
static __always_inline void wb_note_asker(const struct wb_socket *accepted)
{
	struct wb_candidate_key key;
	struct wb_socket *candidate;

	if (accepted->role != WB_ACCEPTED || !(accepted->flags & WB_LISTED))
		return;
	wb_candidate_key(accepted, &key);
	candidate = bpf_map_lookup_elem(&candidates, &key);
	if (candidate)
		candidate->by.arrival.asked_by = bpf_get_current_task_btf()->pid;
}

/* A walk over a queue, from the newest ticket to older ones, until all open candidates have been seen. */
struct wb_search {
	__u64 handle; /* whose candidates */
	struct wb_endpoint dst;
	__u32 asker; /* the thread that dials */
	struct wb_candidate_key key;
	__s64 left;     /* candidates of the queue that have not been seen */
	__u64 flow_id;  /* of the one that is looked for */
	__u64 found;    /* ticket of the oldest that fits */
	__u32 n_found;  /* how many fit */
	__u32 by_asker; /* 1: this thread has asked about those, and no others count any more */
	__u64 flows[WB_MAX_LINKS];
};

/* The next candidate of the provider that goes to this destination; NULL: not here. */
static __always_inline struct wb_socket *wb_next_candidate(struct wb_search *s)
{
	struct wb_socket *candidate;
	struct wb_endpoint dst;

	s->key.ticket--;
	candidate = bpf_map_lookup_elem(&candidates, &s->key);
	if (!candidate)
		return NULL;
	s->left--;
	wb_hop_dst(wb_newest_hop(candidate), &dst);
	if (wb_newest_hop(candidate)->handle != s->handle || !wb_same_endpoint(&dst, &s->dst))
		return NULL;
	return candidate;
}

/* Look for all that fit. What is counted stays unknown to the verifier, which would walk the loop for each value. */
static long wb_search_any(__u32 i, struct wb_search *s)
{
	struct wb_socket *candidate;
	__u32 asked, n;

	if (s->left <= 0 || !s->key.ticket)
		return 1;
	candidate = wb_next_candidate(s);
	if (!candidate)
		return 0;
	asked = wb_equal(candidate->by.arrival.asked_by, s->asker);
	if (asked < s->by_asker)
		return 0;
	n = asked > s->by_asker ? wb_unknown_zero : s->n_found;
	s->by_asker |= asked;
	s->found = s->key.ticket;
	s->n_found = n + 1;
	s->flows[n & (WB_MAX_LINKS - 1)] = candidate->records.origin.flow_id;
	return 0;
}

static long wb_search_flow(__u32 i, struct wb_search *s)
{
	struct wb_socket *candidate;

	if (s->left <= 0 || !s->key.ticket)
		return 1;
	candidate = wb_next_candidate(s);
	if (!candidate || candidate->records.origin.flow_id != s->flow_id)
		return 0;
	s->n_found = 1;
	return 1;
}

/* Go to the newest ticket of the queue. False: it has none. */
static __always_inline bool wb_begin_search(struct wb_search *s)
{
	struct wb_queue *queue;

	s->key.queue = wb_queue_number(&s->dst);
	queue = bpf_map_lookup_elem(&queues, &s->key.queue);
	if (!queue)
		return false;
	s->key.ticket = *(volatile __u64 *)&queue->tickets;
	s->left = *(volatile __s64 *)&queue->open;
	s->n_found = wb_unknown_zero;
	s->by_asker = wb_unknown_zero;
	return true;
}

/* Whether some connection to this destination waits to be forwarded: the question that most connections end with. */
static __always_inline bool wb_has_candidates(const struct wb_endpoint *dst)
{
	__u32 number = wb_queue_number(dst);
	struct wb_queue *queue = bpf_map_lookup_elem(&queues, &number);

	return queue && *(volatile __s64 *)&queue->open > 0;
}

/* Tell user space which flows the new one may belong to. */
static __always_inline void wb_report_links(const struct wb_search *s, const struct wb_records *r)
{
	struct wb_links *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		wb_count(WB_EVENTS_LOST);
		return;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->event.time = bpf_ktime_get_boot_ns();
	e->event.flow_id = r->origin.flow_id;
	e->event.provider = s->handle;
	e->event.kind = WB_EVENT_LINKED;
	e->event.hop = wb_hop_number(r, r->n_hops);
	e->n_candidates = s->n_found;
	e->n_flows = s->n_found < WB_MAX_LINKS ? s->n_found : WB_MAX_LINKS;
	__builtin_memcpy(e->flows, s->flows, sizeof(e->flows));
	bpf_ringbuf_submit(e, 0);
}

struct wb_heir {
	struct bpf_sock *sk;
	struct wb_socket *socket; /* of sk; NULL: it has none yet */
	struct wb_search search;
	__u32 kinship; /* enum wb_kinship */
	__u32 reserved;
};

/* Take one candidate. It is copied before it is deleted: who deletes it knows that it was whole until then. */
static long wb_inherit_step(__u32 round, struct wb_heir *h)
{
	struct wb_search *s = &h->search;
	struct wb_socket *candidate;
	struct wb_queue *queue;

	if (!wb_begin_search(s))
		return 1;
	bpf_loop(WB_WINDOW, wb_search_any, s, 0);
	if (!s->n_found)
		return 1;
	s->key.ticket = s->found;
	candidate = bpf_map_lookup_elem(&candidates, &s->key);
	if (!candidate)
		return 0;
	if (!h->socket)
		h->socket = bpf_sk_storage_get(&sockets, h->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!h->socket)
		return 1;
	h->socket->records = candidate->records;
	if (bpf_map_delete_elem(&candidates, &s->key))
		return 0;
	queue = bpf_map_lookup_elem(&queues, &s->key.queue);
	if (queue)
		__sync_fetch_and_add(&queue->open, -1);
	h->kinship = s->n_found == 1 ? WB_KIN_INHERITED : WB_KIN_AMBIGUOUS;
	return 1;
}

/*
 * Records for a socket without any, on which a process of the provider with
 * this handle dials dst. The history is that of the oldest candidate; if this
 * thread has asked for the original destination of some, of the oldest of
 * those. Its flow id comes along if it is the only one.
 */
static __noinline enum wb_kinship wb_inherit(struct wb_heir *h)
{
	struct wb_socket *s;

	h->search.asker = bpf_get_current_task_btf()->pid;
	bpf_loop(WB_TRIES, wb_inherit_step, h, 0);
	s = h->socket;
	if (!s)
		return WB_KIN_NONE;
	if (!h->kinship) {
		s->records.n_hops = 0; /* what a failed try may have left */
		return WB_KIN_NONE;
	}
	s->carried = s->records.n_hops;
	s->role = WB_CONNECTS;
	s->flags = WB_TOOK_OVER;
	wb_count_provider(h->search.handle, WB_PROVIDER_INHERITED);
	if (h->kinship == WB_KIN_INHERITED) {
		wb_count(WB_INHERITED);
		return WB_KIN_INHERITED;
	}
	s->records.origin.flow_id = wb_new_flow_id();
	wb_report_links(&h->search, &s->records);
	wb_count(WB_INHERITED_AMBIGUOUS);
	return WB_KIN_AMBIGUOUS;
}

/* Records were set that came from an accepted connection: it is forwarded. */
static __noinline void wb_forward_candidate(const struct wb_socket *set)
{
	struct wb_search s = { .flow_id = set->records.origin.flow_id, .handle = wb_newest_hop(set)->handle };

	wb_hop_dst(wb_newest_hop(set), &s.dst);
	if (!wb_begin_search(&s))
		return;
	bpf_loop(WB_WINDOW, wb_search_flow, &s, 0);
	if (s.n_found)
		wb_remove_candidate(&s.key);
}

#endif /* WB_CANDIDATE_H */
