/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* What user space hears of a connection on its way. Nothing waits for it: what finds no room is counted. */
#ifndef WB_EVENT_H
#define WB_EVENT_H

#include "records.h"

static __always_inline struct wb_end *wb_reserve_end(enum wb_event_kind kind, const struct wb_socket *s)
{
	const struct wb_hop *hop = wb_newest_hop(s);
	struct wb_end *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		wb_count(WB_EVENTS_LOST);
		return NULL;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->event.time = bpf_ktime_get_boot_ns();
	e->event.flow_id = s->records.origin.flow_id;
	e->event.kind = kind;
	e->event.hop = wb_hop_number(&s->records, s->carried);
	if (wb_is_stamped(s)) {
		e->event.provider = hop->handle;
		e->since = hop->time;
	}
	return e;
}

/* Whether the peer ended the connection by a reset, or refused it. */
static __always_inline bool wb_was_reset(struct bpf_sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	int err = tp ? tp->inet_conn.icsk_inet.sk.sk_err : 0;

	return err == ECONNRESET || err == ECONNREFUSED || err == EPIPE; /* as tcp_reset() sets it */
}

/* s: as the connecting side filled it in. */
static __always_inline void wb_report_accepted(const struct wb_socket *s)
{
	struct wb_end *e = wb_reserve_end(WB_EVENT_ACCEPTED, s);

	if (e)
		bpf_ringbuf_submit(e, 0);
}

/* The datagrams that went either way stand for the bytes. */
static __always_inline void wb_report_peer_closed(const struct wb_peer *peer)
{
	struct wb_end *e = wb_reserve_end(WB_EVENT_CLOSED, &peer->socket);

	if (!e)
		return;
	if (peer->parted)
		e->event.time = peer->parted;
	e->sent = peer->sent;
	e->received = peer->received;
	bpf_ringbuf_submit(e, 0);
}

static __always_inline void wb_report_kept(const struct wb_outcome *kept)
{
	struct wb_outcome *o = bpf_ringbuf_reserve(&events, sizeof(*o), 0);

	if (!o) {
		wb_count(WB_EVENTS_LOST);
		return;
	}
	__builtin_memcpy(o, kept, sizeof(*o));
	bpf_ringbuf_submit(o, 0);
}

/* States in which our FIN has been acknowledged, and those in which the peer's has come, if all went in order. */
#define WB_FIN_SENT (1 << BPF_TCP_FIN_WAIT2 | 1 << BPF_TCP_CLOSING | 1 << BPF_TCP_LAST_ACK | 1 << BPF_TCP_TIME_WAIT)
#define WB_FIN_RECEIVED                                                                                    \
	(1 << BPF_TCP_FIN_WAIT2 | 1 << BPF_TCP_CLOSE_WAIT | 1 << BPF_TCP_CLOSING | 1 << BPF_TCP_LAST_ACK | \
	 1 << BPF_TCP_TIME_WAIT)

/* The kernel counts SYN and FIN as bytes; a person does not. */
static __always_inline __u64 wb_payload(__u64 bytes, __u32 flags)
{
	return bytes > flags ? bytes - flags : 0;
}

static __always_inline void wb_report_closed(struct bpf_sock_ops *ctx, struct bpf_sock *sk, const struct wb_socket *s)
{
	struct wb_end *e = wb_reserve_end(WB_EVENT_CLOSED, s);
	struct tcp_sock *tp;
	__u32 last; /* state before this one, as a bit */

	if (!e)
		return;
	last = 1 << (ctx->args[0] & 31);
	e->sent = wb_payload(ctx->bytes_acked, 1 + !!(last & WB_FIN_SENT));
	e->received = wb_payload(ctx->bytes_received, !!(last & WB_FIN_RECEIVED));
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		e->error = tp->inet_conn.icsk_inet.sk.sk_err;
	bpf_ringbuf_submit(e, 0);
}

#endif /* WB_EVENT_H */
