package domain

import "strings"

// Match is the value of an If-Match header: the entity tags of which the current document must bear one. Empty means no
// condition.
type Match string

// Check refuses when the document, whose hash is given (empty: there is none), is none of those.
func (m Match) Check(noun, id, hash string) error {
	if m == "" {
		return nil
	}
	for tag := range strings.SplitSeq(string(m), ",") {
		tag = strings.TrimSpace(tag)
		if hash != "" && (tag == "*" || tag == ETag(hash)) {
			return nil
		}
	}
	if hash == "" {
		return Refuse(Precondition, "%s '%s' does not exist, If-Match asks for %s", noun, id, m)
	}
	return Refuse(Precondition, "%s '%s' has changed: it is %s, If-Match asks for %s", noun, id, ETag(hash), m)
}

// ETag is the entity tag of a document: its hash in quotes.
func ETag(hash string) string { return `"` + hash + `"` }
