package events

import (
	"errors"
	"fmt"
	"strings"
)

// Aggregate is the first token after "events.": the kind of thing that a fact is about. Optimistic concurrency is
// checked per aggregate and id.
type Aggregate string

// The aggregates. AggregateRun is our agents' own: its id is the endpoint, so that one broker permission an endpoint
// suffices.
const (
	AggregateJob      Aggregate = "job"
	AggregateSchedule Aggregate = "schedule"
	AggregateExec     Aggregate = "exec"
	AggregateAgent    Aggregate = "agent"
	AggregateConfig   Aggregate = "config"
	AggregateFreeze   Aggregate = "freeze"
	AggregateScript   Aggregate = "script"
	AggregateRun      Aggregate = "run"
	AggregateClock    Aggregate = "clock"
)

// Subject prefixes of the log. Old agents' started events and results, and the old CLI's audit records, lie beside our
// own events in the same stream.
const (
	prefixEvents  = "events."
	PrefixStarted = "events.started."
	PrefixResults = "results."
	PrefixAudit   = "audit."
)

// MaxIDLength is the longest id of a document, an endpoint or a group, in bytes.
const MaxIDLength = 128

// ErrInvalidID is wrapped by every refusal of ValidID.
var ErrInvalidID = errors.New("invalid id")

// ValidID checks the id of a document, an endpoint or a group: [A-Za-z0-9][A-Za-z0-9._=/-]{0,127}, no dot at the end.
// Such an id may stand raw in a subject of the wire and as a bucket's key.
func ValidID(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("%w: empty", ErrInvalidID)
	case len(id) > MaxIDLength:
		return fmt.Errorf("%w: %d characters, the limit is %d", ErrInvalidID, len(id), MaxIDLength)
	case !isAlnum(id[0]):
		return fmt.Errorf("%w %q: must begin with a letter or digit", ErrInvalidID, id)
	case id[len(id)-1] == '.':
		return fmt.Errorf("%w %q: must not end with a dot", ErrInvalidID, id)
	}
	for i := range len(id) {
		if !isAlnum(id[i]) && !strings.ContainsRune("._=/-", rune(id[i])) {
			return fmt.Errorf("%w %q: %q is not one of letters, digits and . _ = / -", ErrInvalidID, id, id[i])
		}
	}
	if strings.Contains(id, "..") {
		return fmt.Errorf("%w %q: two dots in a row make an empty subject token", ErrInvalidID, id)
	}
	return nil
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

const upperHex = "0123456789ABCDEF"

// Escape turns any id into one subject token: each byte outside [A-Za-z0-9-], the underscore included, becomes "_" and
// two upper-case hex digits. Two ids never meet, and Unescape undoes it. The empty id becomes the empty string, which
// is no token; ids are checked before they come here.
func Escape(id string) string {
	plain := true
	for i := range len(id) {
		if !isAlnum(id[i]) && id[i] != '-' {
			plain = false
			break
		}
	}
	if plain {
		return id
	}
	var b strings.Builder
	for i := range len(id) {
		if c := id[i]; isAlnum(c) || c == '-' {
			b.WriteByte(c)
		} else {
			b.WriteByte('_')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
	}
	return b.String()
}

// Unescape undoes Escape. It refuses whatever Escape does not produce, so that a token has exactly one reading.
func Unescape(token string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		c := token[i]
		switch {
		case isAlnum(c) || c == '-':
			b.WriteByte(c)
		case c == '_' && i+2 < len(token):
			hi, lo := strings.IndexByte(upperHex, token[i+1]), strings.IndexByte(upperHex, token[i+2])
			d := byte(hi<<4 | lo)
			if hi < 0 || lo < 0 || isAlnum(d) || d == '-' {
				return "", fmt.Errorf("unescape %q: %q is no escape", token, token[i:i+3])
			}
			b.WriteByte(d)
			i += 2
		default:
			return "", fmt.Errorf("unescape %q: unexpected %q", token, c)
		}
	}
	return b.String(), nil
}

// AggregateFilter is the subject filter over every fact of one aggregate: what an append checks its expected sequence
// against, and what a fold reads.
func AggregateFilter(a Aggregate, id string) string {
	return prefixEvents + string(a) + "." + Escape(id) + ".>"
}

// FactFilter is the subject of one fact of every id of an aggregate: what a durable handler listens to.
func FactFilter(a Aggregate, fact string) string {
	return prefixEvents + string(a) + ".*." + fact
}

// FactSubject is where one fact of one aggregate is stored.
func FactSubject(a Aggregate, id, fact string) string {
	return prefixEvents + string(a) + "." + Escape(id) + "." + fact
}

// AgingFilters are the subjects of facts that leave the log by their age, Limits.History and Slack, and for no other reason
// (Ages): what endpoints say of runs, the days of the clock, and what old agents and CLIs write. All others stay
// until another fact makes them superfluous.
func AgingFilters() []string {
	return []string{
		prefixEvents + string(AggregateRun) + ".>", prefixEvents + string(AggregateClock) + ".>", PrefixStarted + ">", PrefixResults + ">", PrefixAudit + ">",
	}
}

// IsRunSubject says whether a subject of the log holds what endpoints report of runs: agents of ours, or old ones. Such
// facts stand in no aggregate's order, and readers take them late, twice and in any order.
func IsRunSubject(subject string) bool {
	return strings.HasPrefix(subject, prefixEvents+string(AggregateRun)+".") ||
		strings.HasPrefix(subject, PrefixStarted) || strings.HasPrefix(subject, PrefixResults)
}
