/* SPDX-License-Identifier: MIT */
/*
 * A transparent proxy in C that passes redirect records on, on Linux and on
 * Windows, with no library. Each connection has a thread.
 *
 * build: cc -O2 -I../../include -o proxy proxy.c -lpthread
 *        x86_64-w64-mingw32-gcc -O2 -I../../include -o proxy.exe proxy.c -static -lpthread -lws2_32
 * usage: proxy ADDRESS PORT
 */
#ifdef _WIN32
#include <winsock2.h>
#include <ws2tcpip.h>
#define poll WSAPoll
#define close closesocket
#define SHUT_WR SD_SEND
#define last_error() WSAGetLastError()
#else
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
#define INVALID_SOCKET (-1)
#define last_error() errno
#endif
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "waybill.h"

static waybill_socket fail(const char *what, int err)
{
	if (err < 10000)
		fprintf(stderr, "proxy: %s: %s\n", what, strerror(err));
	else
		fprintf(stderr, "proxy: %s: Winsock error %d\n", what, err);
	return INVALID_SOCKET;
}

/* Connect to where the accepted connection was going, with its records. */
static waybill_socket dial_original(waybill_socket accepted)
{
	static _Thread_local WAYBILL_ALIGNED char records[WAYBILL_RECORDS_MAX];
	struct sockaddr_storage dst;
	size_t size = sizeof(records), dst_size = sizeof(dst);
	waybill_socket s;
	int err;

	err = waybill_query_redirect_records(accepted, records, &size);
	if (err)
		return fail("query records", err);
	err = waybill_query_original_destination(accepted, &dst, &dst_size);
	if (err)
		return fail("query original destination", err);
	s = socket(dst.ss_family, SOCK_STREAM, 0);
	if (s == INVALID_SOCKET)
		return fail("socket", last_error());
	err = waybill_set_redirect_records(s, records, size);
	if (err) {
		fail("set records", err);
	} else if (connect(s, (struct sockaddr *)&dst, dst_size)) {
		fail("connect", last_error());
	} else {
		return s;
	}
	close(s);
	return INVALID_SOCKET;
}

/* Copy what is there from one side to the other. 0: that side has ended. */
static int copy(waybill_socket from, waybill_socket to)
{
	char buf[65536];
	int n = recv(from, buf, sizeof(buf), 0);

	for (int done = 0; done < n;) {
		int m = send(to, buf + done, n - done, 0);

		if (m < 0)
			return 0;
		done += m;
	}
	if (n > 0)
		return 1;
	shutdown(to, SHUT_WR);
	return 0;
}

static void relay(waybill_socket a, waybill_socket b)
{
	struct pollfd sides[2] = { { .fd = a, .events = POLLIN }, { .fd = b, .events = POLLIN } };

	while (sides[0].fd != INVALID_SOCKET || sides[1].fd != INVALID_SOCKET) {
		if (poll(sides, 2, -1) < 0)
			return;
		if (sides[0].fd != INVALID_SOCKET && sides[0].revents && !copy(a, b))
			sides[0].fd = INVALID_SOCKET;
		if (sides[1].fd != INVALID_SOCKET && sides[1].revents && !copy(b, a))
			sides[1].fd = INVALID_SOCKET;
	}
}

static waybill_socket listen_on(const char *address, int port)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
	waybill_socket s;
	int err;

	if (inet_pton(AF_INET, address, &in.sin_addr) != 1 && inet_pton(AF_INET6, address, &in6.sin6_addr) != 1)
		return fail(address, EINVAL);
	s = socket(strchr(address, ':') ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
	if (s == INVALID_SOCKET)
		return fail("socket", last_error());
#ifndef _WIN32 /* where it would let anybody take the port */
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
#endif
	if (strchr(address, ':'))
		err = bind(s, (struct sockaddr *)&in6, sizeof(in6));
	else
		err = bind(s, (struct sockaddr *)&in, sizeof(in));
	if (err || listen(s, 1024)) {
		err = last_error();
		close(s);
		return fail("listen", err);
	}
	return s;
}

static void *serve(void *arg)
{
	waybill_socket accepted = (waybill_socket)(intptr_t)arg, upstream = dial_original(accepted);

	if (upstream != INVALID_SOCKET) {
		relay(accepted, upstream);
		close(upstream);
	}
	close(accepted);
	return NULL;
}

static int start(void)
{
#ifdef _WIN32
	WSADATA data;

	return WSAStartup(MAKEWORD(2, 2), &data);
#else
	signal(SIGPIPE, SIG_IGN);
	return 0;
#endif
}

int main(int argc, char **argv)
{
	waybill_socket listener, accepted;
	pthread_t thread;

	if (argc != 3) {
		fprintf(stderr, "usage: proxy ADDRESS PORT\n");
		return 2;
	}
	if (start())
		return 1;
	listener = listen_on(argv[1], atoi(argv[2]));
	if (listener == INVALID_SOCKET)
		return 1;
	puts("ready");
	fflush(stdout);
	for (;;) {
		accepted = accept(listener, NULL, NULL);
		if (accepted == INVALID_SOCKET)
			continue;
		if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)accepted))
			close(accepted);
		else
			pthread_detach(thread);
	}
}
