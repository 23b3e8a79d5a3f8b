// Package dns looks at DNS messages on behalf of a proxy that stands between
// programs and their resolver: which names are asked for ([Rules]), and which
// addresses they were told ([Resolve]). It is pure: messages come in as bytes
// and go out as bytes.
package dns

import "github.com/waybill-net/waybill/internal/domain"

// Rules are names to block. Only the name that a program asks for counts. One
// whose CNAME leads to a blocked name is answered by the resolver, which has
// followed it already.
//
// The zero value blocks nothing. Once filled, Rules may be used concurrently.
type Rules struct {
	domain.Set

	// Answer is what a program is told that asks for a blocked name.
	Answer Answer
}
