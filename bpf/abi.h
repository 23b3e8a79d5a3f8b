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
#define WB_SET_WORDS 160
#define WB_SUMMARY_WORDS 3
#define WB_MAX_FILTERS (64 * WB_SET_WORDS)
#define WB_MAX_HOPS 8
#define WB_MAX_LINEAGE 16
#define WB_MAX_LINKS 8
#define WB_QUEUE_BITS 14
#define WB_USER_BITS 12
#define WB_MAX_ARGS 256
#define WB_PROXIES 4
#define WB_MAX_PEERS 1024
#define WB_EVICTIONS 8
#define WB_PEER_BITS 18

/* Of them, those whose clients are gone. */
#define WB_PARTED_BITS 16

/* An address and port. IPv4 is stored IPv4-mapped, so one code path serves both families. */
struct wb_endpoint {
	__be32 addr[4];
	__be16 port;
	__u16 protocol; /* IPPROTO_TCP, IPPROTO_UDP; 0 where something else tells it */
};

enum wb_on_down {
	WB_BYPASS, /* go on as if the provider were not there */
	WB_BLOCK,  /* refuse the connection with EACCES */
};

/* A provider, as the decision needs it. Providers stand in order: the heaviest first. */
struct wb_provider {
	__u64 handle;                           /* the identity behind "self", for every family and hook */
	__u64 cgroup;                           /* id of the cgroup that holds its processes; 0: none */
	struct wb_endpoint proxies[WB_PROXIES]; /* where connections go: see wb_proxy_for(); port 0: nowhere */
	__s32 weight;
	__u32 cgroup_level; /* depth of that cgroup below the root */
	__u16 on_down;      /* enum wb_on_down */
	__u16 flags;        /* enum wb_provider_flags */
	__u32 end[2];       /* by enum wb_layer: its filters in that layer end before this one */
	__u32 stuck_after;  /* microseconds that a connection may wait for accept() */
};

enum wb_provider_flags {
	WB_SHADOW = 1,         /* count what would happen, and do none of it */
	WB_EMULATE_TPROXY = 2, /* getsockname() on an accepted socket answers the original destination */
};

/* The filters of all providers stand in one order: see struct wb_policy. */
struct wb_filter {
	__u8 provider;
	__u8 action; /* enum wb_action */
	__u8 states; /* bit s: it matches in state s */
	__u8 flags;  /* enum wb_filter_flags */
};

enum wb_filter_flags {
	WB_FILTER_HAS_CONTEXT = 1, /* it has a context */
	WB_DROPS_QUIC = 2,         /* where it would get a connection of TCP, UDP is refused */
};

enum wb_action {
	WB_ACTION_REDIRECT,
	WB_ACTION_PERMIT,
	WB_ACTION_BLOCK,
};

/* Two kinds of filters that do not see each other. */
enum wb_layer {
	WB_LAYER_REDIRECT,
	WB_LAYER_AUTHORIZE, /* permit and block */
};

#define WB_FOR_ORIGIN 2 /* a flag beside enum wb_layer */

/* A set of filters: bit i % 64 of word i / 64 is filter i. */
struct wb_set {
	__u64 words[WB_SET_WORDS];
	__u64 summary[WB_SUMMARY_WORDS]; /* bit w % 64 of word w / 64: words[w] is not empty */
	__u64 exact;                     /* of a class: its key is one value, not a default or a prefix */
};

/*
 * What filters can ask of a connection. In each dimension, every value has a
 * class, and a class has the set of the filters that it satisfies. The filters
 * that match are those in all seven sets: the cost does not grow with their
 * number.
 */
enum wb_dimension {
	WB_DESTINATION,
	WB_PORT,
	WB_PROGRAM,
	WB_ORIGINAL_PROGRAM,
	WB_USER,
	WB_CGROUP,
	WB_ORIGINAL_CGROUP,
	WB_DIMENSIONS,
};

/* Finds the class of a value by its longest prefix. One with no data bits is of all other values. */
struct wb_class_key {
	__u32 prefix_bits; /* of what follows */
	__u32 generation;
	__u32 dimension;
	__u32 data[4]; /* address or port: in network byte order; anything else as it is */
};

#define WB_CLASS_FIXED_BITS 64

enum wb_policy_flags {
	/* Forget the records and exempt from each provider only its own processes: how proxies live without waybill. */
	WB_TRACKING_OFF = 1,
	/* Which of the costly questions some filter asks. */
	WB_ASKS_PROGRAM = 2,
	WB_ASKS_USER = 4,
	WB_ASKS_CGROUP = 8,
	/* Some filter wants UDP, or wants none of it. */
	WB_WANTS_UDP = 16,
	/* Some filter has WB_DROPS_QUIC. */
	WB_HAS_QUIC_DROPS = 32,
};

#define WB_ANY_STATE 4
#define WB_STATE_SETS 8

/*
 * The policy. It is one map value, replaced as a whole; the classes of its
 * generation stand in a map of their own, and are there before it is in force
 * and until it no longer is. Filters stand in the order in which they count:
 * those that redirect, by provider and by weight inside it; then those that
 * authorize, likewise.
 */
struct wb_policy {
	__u32 generation;
	__u32 flags; /* enum wb_policy_flags */
	__u32 n_providers;
	__u32 end[2]; /* by enum wb_layer: the filters of that layer end before this one */
	__u32 zero;   /* always: see wb_hide() */
	struct wb_provider providers[WB_MAX_PROVIDERS];
	struct wb_filter filters[WB_MAX_FILTERS];
	struct wb_set states[WB_STATE_SETS]; /* by enum waybill_state: the filters for it; and for any */
	__u64 ports[2048]; /* bit p: some filter wants port p of TCP; then those of UDP. Most connections end here */
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
	WB_HOP_UDP = 2, /* what was redirected is UDP; else it is TCP */
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

/* The process at the start of a flow, or of one of its connections. As struct waybill_origin begins. */
struct wb_process {
	__u32 pid;
	__u32 tgid;
	__u32 uid;
	__u32 gid;
	__u64 cgroup_id;
	__u64 netns_cookie;
	__u64 start_time;
	__u64 flow_id;
	char comm[16];
};

/*
 * The redirect records of one connection, oldest hop first. A blob is this
 * struct cut off after the last hop, followed by a struct wb_seal.
 */
struct wb_records {
	__u16 version; /* WB_RECORDS_VERSION */
	__u16 n_hops;
	__u32 device; /* with inode: the executable of origin */
	__u64 inode;
	struct wb_process origin;
	struct wb_hop hops[WB_MAX_HOPS];
};

#define WB_RECORDS_VERSION 0x5702

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

enum wb_socket_flags {
	WB_HAS_CONTEXT = 1,
	WB_BEHIND_TPROXY = 2, /* WB_EMULATE_TPROXY, of the provider that redirected it */
	WB_LISTED = 4,        /* it was made a candidate: see candidate.h */
	WB_TOOK_OVER = 8,     /* nobody set the records that it carries: it took them over */
	WB_IS_AMBIGUOUS = 16, /* and they may be another connection's */
};

/* What a connecting socket knows beside its records. */
struct wb_departure {
	__u64 proxy_cgroup; /* whose listener is to accept it */
	__u64 cookie;       /* its own */
};

/* What an accepted socket knows beside its records. */
struct wb_arrival {
	__u64 ticket;    /* of the candidate: see candidate.h */
	__u32 asked_by;  /* of the candidate: the thread that asked for the original destination; 0: none */
	__u32 forwarded; /* of the candidate: 1 once a connection goes on with it */
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
	__u8 role;  /* enum wb_role */
	__u8 flags; /* enum wb_socket_flags */
	__u8 proxy_cgroup_level;
	union { /* by role */
		struct wb_departure departure;
		struct wb_arrival arrival;
	} by;
};

/*
 * Connections that proxies accepted stand in queues by their original
 * destination. A ticket is given out once.
 */
struct wb_queue {
	__u64 tickets; /* given out so far */
	__s64 open;    /* candidates in the queue */
	__s64 waiting; /* of them, those that are not forwarded yet */
};

struct wb_candidate_key {
	__u64 ticket;
	__u32 queue;
	__u32 reserved;
};

/*
 * UDP. A flow is what one socket and one destination say to each other. The
 * proxy knows it as a peer: an address that no other flow has or had for long,
 * and the port of the client's socket. See datagram.h.
 */
struct wb_peer_key {
	__u64 netns_cookie;
	struct wb_endpoint peer;
	__u32 reserved;
};

enum wb_peer_flags {
	WB_PEER_CONNECTED =
		1,           /* the client's socket is connected: its datagrams have its own address as their source */
	WB_PEER_ARRIVED = 2, /* the proxy has read a datagram of it */
	WB_PEER_TAKEN = 4, /* the proxy has connected a socket of its own address to it, from which answers may come */
};

struct wb_peer {
	struct wb_socket socket;   /* as that of a connection on its way to the proxy */
	struct wb_endpoint client; /* where the proxy's answers go */
	__u32 uid;                 /* who has one more peer by this one */
	__be32 addr[4];            /* by which the proxy knows it, with the port of the client */
	__u64 cookie;              /* of the client's socket */
	__u64 proxy_cgroup;
	__u64 last;     /* when its last datagram was sent, in nanoseconds since boot */
	__u64 sent;     /* datagrams of the client */
	__u64 received; /* datagrams of the proxy */
	__u64 next;     /* name of the next younger peer of the same socket; 0: it is the youngest */
	__u64 parted;   /* when the client's socket was closed, in nanoseconds since boot; 0: it is open */
	__u32 generation;
	__u32 flags; /* enum wb_peer_flags */
};

/* Comes by for the peers whose clients are gone: see parting.h. */
struct wb_clock {
	struct bpf_timer timer;
	__u32 runs; /* 1: it will come */
	__u32 reserved;
};

/* Finds the name of a peer. */
struct wb_destination_key {
	__u64 cookie; /* of the client's socket */
	struct wb_endpoint dst;
	__u32 reserved;
};

/* What was told last of a socket's datagrams to a destination that did not go to a proxy. */
struct wb_told {
	__u64 time;
	__u64 bypassed;
	__u64 shadowed;
	__u64 excluded;
	__u32 generation; /* of the policy */
	__u16 verdict;    /* enum wb_verdict */
	__u16 filter;
};

/* Finds what is known of the way to an address, by its longest prefix. */
struct wb_source_key {
	__u32 prefix_bits; /* of what follows */
	__u32 reserved;
	__u64 netns_cookie;
	__be32 addr[4];
};

#define WB_SOURCE_FIXED_BITS 96

enum wb_source_kind {
	WB_SOURCE_UNKNOWN,
	WB_SOURCE_ADDRESS,
	WB_SOURCE_DESTINATION, /* the destination's own: the prefix is local as a whole */
	WB_SOURCE_UNREACHABLE, /* there is no way */
};

/* The source that the kernel gives to what leaves for a prefix. */
struct wb_source {
	__be32 addr[4];
	__u32 kind;  /* enum wb_source_kind */
	__u32 error; /* that connect() ends with, if there is no way */
};

/* What a client's UDP socket knows of its peers, by their names: see wb_name_peer(). */
struct wb_peers {
	__u64 oldest;
	__u64 youngest;
	__u64 connected; /* that of the connect() under way; 0: none */
	__u64 cookie;
	__u64 netns_cookie;
	__u32 n;               /* beside the connected one */
	__u32 uid;             /* at the start of the flow that is being opened */
	__be32 addr[4];        /* that the socket is bound to */
	__be16 port;           /* of the socket; that of a socket which is disconnected can become another */
	__be16 connected_port; /* with which the connected peer was met */
	__u32 reserved;
};

enum wb_verdict {
	WB_PASS, /* no provider wants the connection */
	WB_REDIRECT,
	WB_REFUSE,    /* the provider is down and blocks */
	WB_LOOP,      /* the hop limit is reached */
	WB_FORBID,    /* the filter blocks it */
	WB_DROP_QUIC, /* it is UDP, and the provider would get TCP */
};

/* A process, as filters ask about it. What none asks for is 0. */
struct wb_subject {
	__u64 inode; /* with device: its executable */
	__u32 device;
	__u32 uid;
	__u64 cgroup; /* the deepest of the cgroups it is in that some filter names */
};

/* What the decision knows of a connection. */
struct wb_query {
	struct wb_endpoint dst; /* never the unspecified address: see wb_resolve_any() */
	__s8 self;              /* index of the provider whose process connects without records; -1: none */
	__u8 n_hops;
	__u8 layer;   /* enum wb_layer; with WB_FOR_ORIGIN, the origin is taken for the process that connects */
	__u8 kinship; /* enum wb_kinship; nothing that the decision asks */
	__u64 down;   /* bit i: provider i can not be reached */
	struct wb_subject process;
	struct wb_subject origin;
};

/* Bit i of a mask is provider i. They tell why a provider did not get the connection. */
struct wb_decision {
	__u16 verdict; /* enum wb_verdict */
	__u16 provider;
	__u16 filter;
	__u16 state;    /* enum waybill_state, for the provider */
	__u64 bypassed; /* wanted it and are down */
	__u64 shadowed; /* would have had, or have blocked, it: they are in shadow mode */
	__u64 excluded; /* have filters that match but for the state, and none that matches */
};

/* Every outcome is counted, per CPU. The comment is the text that people read. */
enum wb_counter {
	WB_PASSED,                /* connections that no provider wanted */
	WB_REDIRECTED,            /* connections redirected */
	WB_BYPASSED,              /* providers skipped because they were down */
	WB_BLOCKED,               /* connections refused because a provider was down */
	WB_LOOPED,                /* connections refused at the hop limit */
	WB_FORBIDDEN,             /* connections refused because a filter blocks them */
	WB_QUIC_DROPPED,          /* UDP refused so that programs use TCP, which is redirected */
	WB_SHADOWED,              /* redirects and refusals that shadow mode kept from happening */
	WB_DOWN_NO_LISTENER,      /* down: nothing listens on the proxy's address */
	WB_DOWN_FOREIGN_LISTENER, /* down: the listener is not the provider's process */
	WB_DOWN_NO_ADDRESS,       /* down: no proxy address for this family */
	WB_DOWN_DEVICE,           /* down: the socket is bound to a device */
	WB_DOWN_INFLIGHT_FULL,    /* down: the in-flight map is full */
	WB_DOWN_STUCK,            /* down: the proxy listens but does not accept */
	WB_DOWN_BACKLOG_FULL,     /* down: the proxy's queue of connections to accept is full */
	WB_DESTINATION_REFUSES,   /* not redirected: connect() fails by itself, as nothing listens on loopback there */
	WB_DESTINATION_UNROUTED,  /* refused: connect() of UDP without us fails, as there is no route */
	WB_REFUSED_NO_MEMORY,     /* refused: no memory for the socket's records */
	WB_REFUSED_OVER_SHARE,    /* refused: the user has his share of the in-flight map in use */
	WB_DEPARTED,              /* records put in flight */
	WB_ARRIVED,               /* records handed to the accepted socket */
	WB_ABANDONED,             /* records taken back: the connection failed or closed before it was accepted */
	WB_LOST,                  /* records that found no place in flight */
	WB_DIVERTED,              /* connections that another program rewrote after us */
	WB_INTERCEPTED,           /* records withheld: another process than the provider's accepted the connection */
	WB_INHERITED,             /* connections without records that took over those of the one they forward */
	WB_INHERITED_AMBIGUOUS,   /* likewise, of one of several, with a flow id of their own */
	WB_REFUSED_PEERS_FULL,    /* refused: the socket talks to too many destinations at once */
	WB_UNLISTED,              /* accepted connections that found no room among those to inherit from */
	WB_QUERIED,               /* options read */
	WB_SET,                   /* records set */
	WB_SET_DENIED,            /* SET refused: the process may not */
	WB_SET_MALFORMED,         /* SET refused: wrong size or version */
	WB_SET_FORGED,            /* SET refused: the seal is wrong */
	WB_SET_CONNECTED,         /* SET refused: the socket is connected or connecting */
	WB_SET_SOCKET_TYPE,       /* SET refused: not a TCP or UDP socket */
	WB_SET_NO_MEMORY,         /* SET refused: no memory for the socket's records */
	WB_EVENTS_LOST,           /* events that found no room in the ring */
	WB_COUNTERS,
};

enum wb_provider_counter {
	WB_PROVIDER_REDIRECTED,
	WB_PROVIDER_ARRIVED,
	WB_PROVIDER_BYPASSED,
	WB_PROVIDER_BLOCKED,
	WB_PROVIDER_FORBIDDEN,
	WB_PROVIDER_SHADOWED,
	WB_PROVIDER_INHERITED,
	WB_PROVIDER_RESET,
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

/* A listening socket: the listeners iterator writes this. */
struct wb_listener {
	struct wb_endpoint at;
	__u32 waiting; /* connections that nobody has accepted yet */
	__u32 most;    /* of them; more are dropped */
	__u32 reserved;
	__u64 longest_wait; /* of one of them, in microseconds */
	__u64 owner;        /* handle of the provider whose process created it; 0: none */
};

/* The ids of a cgroup's ancestors by their level, and its own; those deeper than the last are not known. */
struct wb_lineage {
	__u64 ids[WB_MAX_LINEAGE];
};

enum wb_event_kind {
	WB_EVENT_OUTCOME,  /* of a connect(): struct wb_outcome */
	WB_EVENT_ACCEPTED, /* struct wb_end */
	WB_EVENT_CLOSED,   /* struct wb_end */
	WB_EVENT_LINKED,   /* struct wb_links */
};

/* How every event begins. */
struct wb_event {
	__u64 time; /* nanoseconds since boot */
	__u64 flow_id;
	__u64 provider; /* handle; 0: none */
	__u32 kind;     /* enum wb_event_kind */
	__u32 hop;      /* number of the connection in its flow: how many proxies it has behind it */
};

/* What leads from a connection to the one before it in its flow. */
enum wb_kinship {
	WB_KIN_NONE,      /* it is the first, or carries records that were set */
	WB_KIN_IMPLIED,   /* a proxy's connection without records, which forwards none that it accepted */
	WB_KIN_INHERITED, /* a proxy's connection without records, which took over those of the one it forwards */
	WB_KIN_AMBIGUOUS, /* likewise, of one of several: see struct wb_links */
};

/* What became of a connect(). */
struct wb_outcome {
	struct wb_event event;
	struct wb_process process; /* who connects */
	__u64 inode;               /* with device: its executable */
	__u32 device;
	__u32 generation; /* of the policy, and so of the indices here */
	struct wb_endpoint dst;
	__u16 verdict; /* enum wb_verdict */
	__u16 state;   /* enum waybill_state, for the provider */
	__u32 filter;
	__u32 kinship; /* enum wb_kinship */
	__u64 bypassed;
	__u64 shadowed;
	__u64 excluded;
	__u32 reserved;
	__u32 n_args; /* bytes */
	__u8 args[WB_MAX_ARGS];
};

/* A connection reached the proxy, or ended. */
struct wb_end {
	struct wb_event event;
	__u64 since;    /* when it was redirected; 0: it was not */
	__u64 sent;     /* bytes that the peer acknowledged */
	__u64 received; /* bytes */
	__u32 error;    /* errno; 0: an orderly end */
	__u32 reserved;
};

/* A flow that begins with a proxy's connection which forwards one of several: which, nobody can tell. */
struct wb_links {
	struct wb_event event;
	__u32 n_candidates;
	__u32 n_flows; /* of them, those whose flow ids are here */
	__u64 flows[WB_MAX_LINKS];
};

/* What another version must know before it touches the pinned state. */
struct wb_meta {
	__u64 abi;    /* hash of all types and maps here */
	__u64 cgroup; /* id of the scope */
	char version[64];
	char scope[256];
};

#endif /* WB_ABI_H */
