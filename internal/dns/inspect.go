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

// Inspection is what [Rules.Inspect] found. But for Kind its fields are empty
// unless there was exactly one question.
type Inspection struct {
	Kind Kind

	// What is asked for: the name in lower case and ASCII, without the final
	// dot and with the escapes of zone files, and "." for the root; the type
	// and the class by their names or as TYPE65280 and CLASS42.
	Name, Type, Class string

	// Rule is the one that blocks the name, as [Rules.Match] has it, and Answer
	// the message to answer with. Without an Answer, pass the query on.
	Rule   string
	Answer []byte
}

// Inspect looks at a message from a program to its resolver, without the
// length that goes before it over TCP. Only the header and the question need
// to be sound: resolvers differ in what they forgive in the rest, and none may
// be a way around the rules.
func (r *Rules) Inspect(query []byte) Inspection {
	var m miekg.Msg
	// After an error m has all that stands before the fault.
	_ = m.Unpack(query)
	switch {
	case m.Response || m.Opcode != miekg.OpcodeQuery:
		return Inspection{Kind: NotAQuery}
	case len(m.Question) > 1:
		return Inspection{Kind: SeveralQuestions}
	case len(m.Question) == 0 || m.Question[0].Qclass == 0: // 0, which is reserved, if the message ends before it
		return Inspection{Kind: Malformed}
	}
	q := m.Question[0]
	found := Inspection{Kind: Passed, Name: domain.Canonical(q.Name), Type: miekg.Type(q.Qtype).String(), Class: className(q.Qclass)}
	rule, blocked := r.Match(q.Name)
	if !blocked {
		return found
	}
	answer, err := r.Answer.to(&m).Pack()
	if err != nil {
		return Inspection{Kind: Malformed} // what can not be written could not be asked either
	}
	found.Kind, found.Rule, found.Answer = Blocked, rule, answer
	return found
}

func className(class uint16) string {
	if name, ok := miekg.ClassToString[class]; ok {
		return name
	}
	return "CLASS" + strconv.Itoa(int(class))
}
