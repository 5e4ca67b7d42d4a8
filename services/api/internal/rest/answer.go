package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Headers of ours.
const (
	headerSequence  = "Kanade-Sequence"
	headerMin       = "Kanade-Min-Sequence"
	headerApplied   = "Kanade-Applied-Sequence"
	headerAppliedAt = "Kanade-Applied-At"
	headerSearched  = "Kanade-Searched-Sequence"
)

func writeJSON(w http.ResponseWriter, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // scripts are for people to read
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return writeBytes(w, "application/json", bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

func writeBytes(w http.ResponseWriter, contentType string, body []byte) error {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // a client that is gone is its own affair
	return nil
}

// written marks an answer with the sequence of what the request left in the log.
func written(w http.ResponseWriter, seq uint64) {
	w.Header().Set(headerSequence, strconv.FormatUint(seq, 10))
}

// done answers a request of which there is nothing more to say.
func done(w http.ResponseWriter, seq uint64) error {
	written(w, seq)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// instant is a time as answered: RFC 3339 in UTC with 0, 3, 6 or 9 digits of a fraction; null when zero.
type instant time.Time

func (t instant) MarshalJSON() ([]byte, error) {
	if time.Time(t).IsZero() {
		return []byte("null"), nil
	}
	return []byte(`"` + t.text() + `"`), nil
}

// text is empty when zero.
func (t instant) text() string {
	at := time.Time(t).UTC()
	if at.IsZero() {
		return ""
	}
	layout := "2006-01-02T15:04:05.000000000Z"
	switch ns := at.Nanosecond(); {
	case ns == 0:
		layout = "2006-01-02T15:04:05Z"
	case ns%1_000_000 == 0:
		layout = "2006-01-02T15:04:05.000Z"
	case ns%1_000 == 0:
		layout = "2006-01-02T15:04:05.000000Z"
	}
	return at.Format(layout)
}

// known is a text that is null when empty.
func known(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
