/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * Everything that crosses between the kernel programs and Go, and nothing
 * else. bpf2go makes the Go types from this file's BTF. Every struct is a
 * multiple of eight bytes with its padding named: map keys are compared and
 * blobs are sealed byte by byte.
 */
#ifndef WB_ABI_H
#define WB_ABI_H

#include <linux/types.h>

#include "../include/waybill.h"

#define WB_MAX_PROVIDERS 64
#define WB_MAX_FILTERS 1024
#define WB_MAX_HOPS 8

/* An address and port. IPv4 is stored IPv4-mapped, so one code path serves both families. */
struct wb_endpoint {
	__be32 addr[4];
	__be16 port;
	__u16 reserved;
};

enum wb_on_down {
	WB_BYPASS, /* go on as if the provider were not there */
	WB_BLOCK,  /* refuse the connection with EACCES */
};

/* A provider, as the decision needs it. Providers stand in order: the heaviest first. */
struct wb_provider {
	__u64 handle;              /* the identity behind "self", for every family and hook */
	__u64 cgroup;              /* id of the cgroup that holds its processes; 0: none */
	struct wb_endpoint proxy4; /* where IPv4 goes; port 0: nowhere */
	struct wb_endpoint proxy6; /* where IPv6 goes */
	__s32 weight;
	__u32 cgroup_level; /* depth of that cgroup below the root */
	__u32 on_down;      /* enum wb_on_down */
	__u32 first_filter; /* its filters are filters[first_filter … + n_filters) */
	__u32 n_filters;
	__u32 reserved;
};

/* A filter matches when every field does. */
struct wb_filter {
	__be32 prefix[4]; /* destination & mask == prefix */
	__be32 mask[4];
	__u16 port_first; /* host byte order, inclusive */
	__u16 port_last;
	__u16 flags; /* enum wb_filter_flags */
	__u16 reserved;
};

enum wb_filter_flags {
	WB_FILTER_IPV4 = 1,    /* the prefix is one of IPv4 addresses; it matches only those */
	WB_FILTER_LOCAL = 2,   /* the prefix lies in loopback or link-local space */
	WB_FILTER_CONTEXT = 4, /* has an entry in `contexts` */
};

enum wb_policy_flags {
	/* Forget the records and exempt from each provider only its own processes: how proxies live without waybill. */
	WB_TRACKING_OFF = 1,
};

/* The whole policy is one map value, replaced as a whole. */
struct wb_policy {
	__u32 generation;
	__u32 flags; /* enum wb_policy_flags */
	__u32 n_providers;
	__u32 n_filters;
	struct wb_provider providers[WB_MAX_PROVIDERS];
	struct wb_filter filters[WB_MAX_FILTERS];
};

struct wb_context_key {
	__u32 generation;
	__u32 filter;
};

struct wb_context {
	__u32 size;
	__u32 reserved;
	__u8 data[WAYBILL_CONTEXT_MAX];
};

enum wb_hop_flags {
	/*
	 * Nobody stamped this hop: a process of the provider opened the connection without records. It counts as
	 * redirected by this provider and by every provider of higher or equal weight.
	 */
	WB_HOP_IMPLIED = 1,
};

/* One redirect of a flow. */
struct wb_hop {
	__u64 handle;
	__u64 time;     /* nanoseconds since boot */
	__be32 addr[4]; /* what the connection asked for */
	__be16 port;
	__u16 flags;  /* enum wb_hop_flags */
	__s32 weight; /* the provider's, at that time */
};

/*
 * The redirect records of one connection, oldest hop first. A blob is this
 * struct cut off after the last hop, followed by a struct wb_seal.
 */
struct wb_records {
	__u32 version; /* WB_RECORDS_VERSION */
	__u32 n_hops;
	struct waybill_origin origin;
	struct wb_hop hops[WB_MAX_HOPS];
};

#define WB_RECORDS_VERSION 0x57420001

struct wb_seal {
	__u64 mac[2];
};

struct wb_key {
	__u64 k[2];
};

/* A connection on its way to a proxy, as the side that connects sees it. */
struct wb_flight_key {
	__u64 netns_cookie;
	struct wb_endpoint local;
	struct wb_endpoint remote;
};

enum wb_role {
	WB_CONNECTS,
	WB_ACCEPTED,
};

/*
 * What a socket knows. The first `carried` hops were set by the proxy that
 * owns the socket; those after them were added by the connect() under way and
 * are dropped when it is repeated. With the kernel's 72 bytes around it, it
 * just fits an allocation of 512: every redirect makes two.
 */
struct wb_socket {
	struct wb_records records;
	struct wb_endpoint proxy; /* where the connect() under way was sent */
	__u8 carried;
	__u8 role; /* enum wb_role */
	__u8 has_context;
	__u8 proxy_cgroup_level;
	__u64 proxy_cgroup; /* whose listener is to accept it */
	__u64 cookie;       /* of the connecting socket */
};

enum wb_verdict {
	WB_PASS, /* no provider wants the connection */
	WB_REDIRECT,
	WB_REFUSE, /* the provider is down and blocks */
	WB_LOOP,   /* the hop limit is reached */
};

/* What the decision knows of a connection. */
struct wb_query {
	struct wb_endpoint dst; /* never the unspecified address: see wb_resolve_any() */
	__s32 self;             /* index of the provider whose process connects without records; -1: none */
	__u64 down;             /* bit i: provider i can not be reached */
	__u32 n_hops;
	__u32 reserved;
};

struct wb_decision {
	__u32 verdict; /* enum wb_verdict */
	__u32 provider;
	__u32 filter;
	__u32 bypassed; /* providers that wanted the connection and are down */
};

/* Every outcome is counted, per CPU. The comment is the text that people read. */
enum wb_counter {
	WB_PASSED,                /* connections that no provider wanted */
	WB_REDIRECTED,            /* connections redirected */
	WB_BYPASSED,              /* providers skipped because they were down */
	WB_BLOCKED,               /* connections refused because a provider was down */
	WB_LOOPED,                /* connections refused at the hop limit */
	WB_DOWN_NO_LISTENER,      /* down: nothing listens on the proxy's address */
	WB_DOWN_FOREIGN_LISTENER, /* down: the listener is not the provider's process */
	WB_DOWN_NO_ADDRESS,       /* down: no proxy address for this family */
	WB_DOWN_DEVICE,           /* down: the socket is bound to a device */
	WB_DOWN_INFLIGHT_FULL,    /* down: the in-flight map is full */
	WB_DOWN_NO_MEMORY,        /* down: no memory for the socket's records */
	WB_DEPARTED,              /* records put in flight */
	WB_ARRIVED,               /* records handed to the accepted socket */
	WB_ABANDONED,             /* records taken back: the connection failed or closed before it was accepted */
	WB_LOST,                  /* records that found no place in flight */
	WB_DIVERTED,              /* connections that another program rewrote after us */
	WB_INTERCEPTED,           /* records withheld: another process than the provider's accepted the connection */
	WB_QUERIED,               /* options read */
	WB_SET,                   /* records set */
	WB_SET_DENIED,            /* SET refused: the process may not */
	WB_SET_MALFORMED,         /* SET refused: wrong size or version */
	WB_SET_FORGED,            /* SET refused: the seal is wrong */
	WB_SET_CONNECTED,         /* SET refused: the socket is connected or connecting */
	WB_SET_SOCKET_TYPE,       /* SET refused: not a TCP socket */
	WB_COUNTERS,
};

enum wb_provider_counter {
	WB_PROVIDER_REDIRECTED,
	WB_PROVIDER_ARRIVED,
	WB_PROVIDER_BYPASSED,
	WB_PROVIDER_BLOCKED,
	WB_PROVIDER_COUNTERS,
};

struct wb_provider_counts {
	__u64 n[WB_PROVIDER_COUNTERS];
};

/* One socket of a flow: the flows iterator writes this, then its struct wb_socket. */
struct wb_flow {
	struct wb_endpoint local;
	struct wb_endpoint remote;
	__u64 socket_cookie;
	__u32 tcp_state;
	__u32 reserved;
};

#endif /* WB_ABI_H */
