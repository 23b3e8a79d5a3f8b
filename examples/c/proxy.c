/* SPDX-License-Identifier: MIT */
/*
 * A transparent proxy in C that passes redirect records on, with two socket
 * calls and no library. It handles each connection in a process of its own.
 *
 * build: cc -O2 -I../../include -o proxy proxy.c
 * usage: proxy ADDRESS PORT
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "waybill.h"

static int fail(const char *what)
{
	fprintf(stderr, "proxy: %s: %s\n", what, strerror(errno));
	return -1;
}

/* Connect to where the accepted connection was going, with its records. */
static int dial_original(int accepted)
{
	char records[WAYBILL_RECORDS_MAX];
	struct sockaddr_storage dst;
	socklen_t size = sizeof(records), dst_size = sizeof(dst);
	int fd;

	if (getsockopt(accepted, SOL_WAYBILL, WAYBILL_REDIRECT_RECORDS, records, &size))
		return fail("get records");
	if (getsockopt(accepted, SOL_WAYBILL, WAYBILL_ORIGINAL_DST, &dst, &dst_size))
		return fail("get original destination");
	fd = socket(dst.ss_family, SOCK_STREAM, 0);
	if (fd < 0)
		return fail("socket");
	if (setsockopt(fd, SOL_WAYBILL, WAYBILL_REDIRECT_RECORDS, records, size)) {
		fail("set records");
	} else if (connect(fd, (struct sockaddr *)&dst, dst_size)) {
		fail("connect");
	} else {
		return fd;
	}
	close(fd);
	return -1;
}

/* Copy what is there from one side to the other. 0: that side has ended. */
static int copy(int from, int to)
{
	char buf[65536];
	ssize_t n = read(from, buf, sizeof(buf));

	for (ssize_t done = 0; done < n;) {
		ssize_t m = write(to, buf + done, n - done);

		if (m < 0)
			return 0;
		done += m;
	}
	if (n > 0)
		return 1;
	shutdown(to, SHUT_WR);
	return 0;
}

static void relay(int a, int b)
{
	struct pollfd sides[2] = { { .fd = a, .events = POLLIN }, { .fd = b, .events = POLLIN } };

	while (sides[0].fd >= 0 || sides[1].fd >= 0) {
		if (poll(sides, 2, -1) < 0)
			return;
		if (sides[0].fd >= 0 && sides[0].revents && !copy(a, b))
			sides[0].fd = -1;
		if (sides[1].fd >= 0 && sides[1].revents && !copy(b, a))
			sides[1].fd = -1;
	}
}

static int listen_on(const char *address, int port)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
	int one = 1, fd, err;

	if (inet_pton(AF_INET, address, &in.sin_addr) != 1 && inet_pton(AF_INET6, address, &in6.sin6_addr) != 1) {
		errno = EINVAL;
		return fail(address);
	}
	fd = socket(strchr(address, ':') ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
	if (fd < 0)
		return fail("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (strchr(address, ':'))
		err = bind(fd, (struct sockaddr *)&in6, sizeof(in6));
	else
		err = bind(fd, (struct sockaddr *)&in, sizeof(in));
	if (err || listen(fd, 1024)) {
		close(fd);
		return fail("listen");
	}
	return fd;
}

static int serve(int accepted)
{
	int upstream = dial_original(accepted);

	if (upstream < 0)
		return 1;
	relay(accepted, upstream);
	return 0;
}

int main(int argc, char **argv)
{
	int listener, accepted;

	if (argc != 3) {
		fprintf(stderr, "usage: proxy ADDRESS PORT\n");
		return 2;
	}
	listener = listen_on(argv[1], atoi(argv[2]));
	if (listener < 0)
		return 1;
	signal(SIGCHLD, SIG_IGN); /* the kernel reaps the children */
	signal(SIGPIPE, SIG_IGN);
	puts("ready");
	fflush(stdout);
	for (;;) {
		accepted = accept(listener, NULL, NULL);
		if (accepted < 0)
			continue;
		if (fork() == 0) {
			close(listener);
			_exit(serve(accepted));
		}
		close(accepted);
	}
}
