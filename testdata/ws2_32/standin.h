/* SPDX-License-Identifier: MIT */
/*
 * A stand-in for ws2_32.dll under Wine, for tests. It answers the control codes
 * by which a proxy reads and sets redirect records, as Microsoft's pages say
 * Windows does, and plays the callout that redirects: see docs/windows.md. All
 * else is Wine's own DLL, under the name ws2_real.dll. It is a model, written
 * from documents, and proves nothing about Windows.
 */
#ifndef STANDIN_H
#define STANDIN_H

#define WINSOCK_API_LINKAGE /* these functions are defined here, not imported */
#include <stdint.h>
#include <winsock2.h>
#include <ws2tcpip.h>
#include <mswsock.h>
#include <windows.h>

/* Of ws2_32.dll nothing can be imported: it is this. */
#define WSASetLastError SetLastError
#define htons __builtin_bswap16
#define ntohs __builtin_bswap16
#define htonl __builtin_bswap32

/* mstcpip.h has them for Windows 8 and later only. */
#define QUERY_RECORDS 0x980000DC
#define QUERY_CONTEXT 0x980000DD
#define SET_RECORDS 0x980000DE
#define QUERY_ENDPOINT 0x580000CD
#define UDP_NETRESET 0x9800000F
#define OPTION_RECORDS 60
#define OPTION_CONTEXT 70
#define OPTION_ORIGINAL_DST 0x300F

/* The stand-in's own codes. */
#define STANDIN_POLICY 0x9800F001  /* in: struct policy. Forgets all flows */
#define STANDIN_ARM 0x9800F002     /* in: struct armed. How this socket answers */
#define STANDIN_READ 0x9800F003    /* out: the records that were set on this socket */
#define STANDIN_COUNT 0x9800F004   /* out: uint32_t, redirects since the policy */
#define STANDIN_PENDING 0x9800F005 /* out: uint32_t, requests of this process that are pending */

enum {
	MAX_PROVIDERS = 4,
	MAX_BLOB = 72 << 10,
	MAX_ARMED = 4
};

/* What providers want: TCP and UDP to one port, the heaviest provider first. */
struct policy {
	uint16_t port;
	uint16_t providers;
	uint16_t proxies[MAX_PROVIDERS]; /* their ports on loopback */
	uint32_t padding;                /* bytes that make records longer */
	uint32_t plain;                  /* 1: no context, and SO_ORIGINAL_DST instead */
};

/* How a socket answers one code, until it is armed for it again. */
struct armed {
	uint32_t code;
	uint32_t error;         /* fail with this; 0: do not */
	uint32_t returned;      /* with it, in lpcbBytesReturned */
	uint32_t pending;       /* 1: WSA_IO_PENDING first */
	uint32_t delay;         /* milliseconds until that is over; INFINITE: it never is */
	uint32_t short_error;   /* what is said of a short buffer; 0: 122 */
	uint32_t short_returns; /* and of the size: SHORT_... */
	uint32_t deaf;          /* 1: CancelIoEx does nothing */
	uint32_t size;          /* of the answer that follows; 0: the usual one */
	uint8_t answer[];
};

enum {
	SHORT_SIZE,
	SHORT_ZERO,
	SHORT_PART
};

/* One hop of a model's records. The list begins with struct records. */
struct hop {
	uint64_t handle;
	struct sockaddr_storage dst;
};

struct records {
	uint32_t magic;
	uint32_t size; /* of all, with padding */
	uint32_t sum;  /* of what follows */
	uint32_t hops;
	struct hop hop[];
};

/* bytes of some length. */
struct bytes {
	uint32_t size;
	uint8_t *data;
};

/* real is Wine's own DLL. */
extern struct real {
	int(WINAPI *WSAIoctl)(SOCKET, DWORD, LPVOID, DWORD, LPVOID, DWORD, LPDWORD, LPWSAOVERLAPPED,
			      LPWSAOVERLAPPED_COMPLETION_ROUTINE);
	int(WINAPI *WSAGetOverlappedResult)(SOCKET, LPWSAOVERLAPPED, LPDWORD, BOOL, LPDWORD);
	int(WINAPI *closesocket)(SOCKET);
	int(WINAPI *bind)(SOCKET, const struct sockaddr *, int);
	int(WINAPI *connect)(SOCKET, const struct sockaddr *, int);
	int(WINAPI *getsockname)(SOCKET, struct sockaddr *, int *);
	int(WINAPI *getpeername)(SOCKET, struct sockaddr *, int *);
	int(WINAPI *getsockopt)(SOCKET, int, int, char *, int *);
	int(WINAPI *setsockopt)(SOCKET, int, int, const char *, int);
	int(WINAPI *select)(int, fd_set *, fd_set *, fd_set *, const struct timeval *);
	int(WINAPI *WSASendTo)(SOCKET, LPWSABUF, DWORD, LPDWORD, DWORD, const struct sockaddr *, int, LPWSAOVERLAPPED,
			       LPWSAOVERLAPPED_COMPLETION_ROUTINE);
	SOCKET(WINAPI *WSASocketW)(int, int, int, LPWSAPROTOCOL_INFOW, GROUP, DWORD);
	LPFN_CONNECTEX ConnectEx;
	LPFN_WSARECVMSG WSARecvMsg;
	LPFN_WSASENDMSG WSASendMsg;
} real;

/* sockets.c: what this process knows of its sockets. */
struct socket {
	SOCKET s;
	int bound;
	int synchronous; /* made without WSA_FLAG_OVERLAPPED */
	int wants;       /* 1: records, 2: context, of datagrams */
	struct bytes carried;
	struct armed *armed[MAX_ARMED];
	HANDLE port; /* of completions, or NULL */
	ULONG_PTR key;
};
void lock_sockets(void);
void unlock_sockets(void);
struct socket *socket_of(SOCKET s, int make); /* locked */
void forget_socket(SOCKET s);
struct armed *armed_for(struct socket *k, DWORD code);
int is_socket(SOCKET s);
int socket_type(SOCKET s);

/* The status of a request that failed; its low bits are the error. */
#define ENDED 0xEBB10000u
#define PENDING 0x103 /* STATUS_PENDING */

/* requests.c: the codes. */
int answer_request(SOCKET s, DWORD code, const void *in, DWORD in_size, void *out, DWORD out_size, DWORD *returned,
		   OVERLAPPED *o);
BOOL cancel_requests(SOCKET s, OVERLAPPED *o);
uint32_t pending_requests(void);
int result_of(OVERLAPPED *o, DWORD *n, DWORD *error);

/* callout.c: who redirects, what is on its way. */
int open_callout(void);
void set_policy(const struct policy *p);
uint32_t count_redirects(void);
int valid_records(const void *blob, uint32_t size);
const struct sockaddr *redirect(SOCKET s, const struct sockaddr *to, struct bytes carried,
				struct sockaddr_storage *room);
int find_records(SOCKET s, DWORD code, uint8_t *out, uint32_t *size);
int find_datagram_records(const struct sockaddr *from, DWORD code, uint8_t *out, uint32_t *size, int *first);

/* main.c */
void complete(HANDLE port, ULONG_PTR key, OVERLAPPED *o, DWORD error, DWORD n);

/* datagrams.c */
BOOL cancel_receives(SOCKET s, OVERLAPPED *o);
int WINAPI receive_message(SOCKET s, LPWSAMSG m, LPDWORD n, LPWSAOVERLAPPED o, LPWSAOVERLAPPED_COMPLETION_ROUTINE r);
int WINAPI send_message(SOCKET s, LPWSAMSG m, DWORD flags, LPDWORD n, LPWSAOVERLAPPED o,
			LPWSAOVERLAPPED_COMPLETION_ROUTINE r);

#endif
