/* Looks a name up with the resolver of the C library and prints its IPv4 addresses. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	struct addrinfo hints = { .ai_socktype = SOCK_DGRAM }, *list = NULL, *a;
	char text[INET6_ADDRSTRLEN];
	int err = getaddrinfo(argv[1], NULL, &hints, &list);

	if (err) {
		fprintf(stderr, "getaddrinfo %s: %s\n", argv[1], gai_strerror(err));
		return 1;
	}
	for (a = list; a; a = a->ai_next)
		if (a->ai_family == AF_INET)
			puts(inet_ntop(AF_INET, &((struct sockaddr_in *)a->ai_addr)->sin_addr, text, sizeof(text)));
	return 0;
}
