package dns

import (
	"strconv"

	miekg "github.com/miekg/dns"

	"github.com/waybill-net/waybill/internal/domain"
)

// Kind says what was found in a message.
type Kind string

const (
	Passed           Kind = "passed"  // a question that no rule is about
	Blocked          Kind = "blocked" // a question that a rule is about
	NotAQuery        Kind = "not-a-query"
	SeveralQuestions Kind = "several-questions" // no resolver answers them
	Malformed        Kind = "malformed"         // no question can be read
)

// Inspection is what [Rules.Inspect] found.
type Inspection struct {
	Kind Kind

	// Barred is what must not be passed on. Answer is the message to answer it
	// with; nil: it deserves none.
	Barred bool
	Answer []byte

	// What is asked for: the name in lower case and ASCII, without the final
	// dot and with the escapes of zone files, and "." for the root; the type
	// and the class by their names or as TYPE65280 and CLASS42. They are empty
	// unless there was exactly one question.
	Name, Type, Class string

	Rule string // the one that blocks the name, as [Rules.Match] has it
}

// Inspect looks at a message from a program to its resolver, without the
// length that goes before it over TCP. Only the header and the question need
// to be sound: resolvers differ in what they forgive in the rest, and none may
// be a way around the rules. For the same reason what is no single question is
// barred if there are rules: a resolver may find more in it.
func (r *Rules) Inspect(query []byte) Inspection {
	var m miekg.Msg
	// After an error m has all that stands before the fault.
	_ = m.Unpack(query)
	switch {
	case m.Response || m.Opcode != miekg.OpcodeQuery:
		return Inspection{Kind: NotAQuery}
	case len(m.Question) > 1:
		return r.unreadable(SeveralQuestions, query)
	case len(m.Question) == 0 || m.Question[0].Qclass == 0: // 0, which is reserved, if the message ends before it
		return r.unreadable(Malformed, query)
	}
	q := m.Question[0]
	found := Inspection{Kind: Passed, Name: domain.Canonical(q.Name), Type: miekg.Type(q.Qtype).String(), Class: className(q.Qclass)}
	rule, blocked := r.Match(q.Name)
	if !blocked {
		return found
	}
	answer, err := r.Answer.to(&m).Pack()
	if err != nil {
		return r.unreadable(Malformed, query) // what can not be written could not be asked either
	}
	found.Kind, found.Barred, found.Rule, found.Answer = Blocked, true, rule, answer
	return found
}

func (r *Rules) unreadable(kind Kind, query []byte) Inspection {
	if r.Len() == 0 {
		return Inspection{Kind: kind}
	}
	return Inspection{Kind: kind, Barred: true, Answer: formatError(query)}
}

func className(class uint16) string {
	if name, ok := miekg.ClassToString[class]; ok {
		return name
	}
	return "CLASS" + strconv.Itoa(int(class))
}
