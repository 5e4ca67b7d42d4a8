package events

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
)

// Header has the underlying type of nats.Header. Keys are written exactly as given.
type Header = map[string][]string

// Header names: CloudEvents 1.0 in binary mode for NATS, and the broker's own.
const (
	HeaderMsgID       = "Nats-Msg-Id"
	HeaderTTL         = "Nats-TTL"
	headerSpecVersion = "ce-specversion"
	headerID          = "ce-id"
	headerType        = "ce-type"
	headerSource      = "ce-source"
	headerTime        = "ce-time"
	headerSubject     = "ce-subject"
	headerActor       = "ce-actor"
	headerOrigin      = "ce-origin"
	headerCausation   = "ce-causationid"
	headerCorrelation = "ce-correlationid"
	HeaderTraceParent = "traceparent"
	// HeaderSentAt is borne by commands of ours: when they were sent, RFC 3339 by the broker's clock. One that is heard much
	// later was called off meanwhile, perhaps.
	HeaderSentAt          = "Kanade-Sent-At"
	headerContentType     = "content-type"
	headerContentEncoding = "content-encoding"
)

const (
	specVersion     = "1.0"
	contentTypeJSON = "application/json"
	encodingZstd    = "zstd"
	// compressOver is the size of a body in bytes from which it is stored compressed.
	compressOver = 64 << 10
	// maxDecoded bounds what a compressed body may grow to: a plan of 100 000 endpoints with ids of full length.
	maxDecoded = 64 << 20
)

// Types of messages without an envelope: what agents and CLIs of kanade 0.43.45 write. They are read, never written.
const (
	TypeWireStarted = "wire.started"
	TypeWireResult  = "wire.result"
	TypeWireAudit   = "wire.audit"
)

// Ages says of the headers of a message of the log that it leaves by its age alone: its subject is one of AgingFilters, or
// nothing of this package has written it.
func Ages(h Header) bool { return len(h[HeaderTTL]) == 0 }

// Encode gives headers and body as they are stored. What stays in the log whatever its age bears "Nats-TTL: never", so that
// no max age that somebody gives the stream by hand takes it.
func (e Event) Encode() (Header, []byte, error) {
	h := Header{
		HeaderMsgID:       {e.ID},
		headerSpecVersion: {specVersion},
		headerID:          {e.ID},
		headerType:        {e.Type},
		headerSource:      {percentEncode(e.Source)},
		headerTime:        {e.Time.UTC().Format(time.RFC3339Nano)},
		headerSubject:     {percentEncode(e.Subject)},
		headerContentType: {contentTypeJSON},
	}
	for name, value := range map[string]string{
		headerActor: string(e.Actor), headerOrigin: e.Origin, headerCausation: e.CausationID,
		headerCorrelation: e.CorrelationID, HeaderTraceParent: e.TraceParent,
	} {
		if value != "" {
			h[name] = []string{percentEncode(value)}
		}
	}
	if a := e.Aggregate(); a != AggregateRun && a != AggregateClock {
		h[HeaderTTL] = []string{"never"}
	}
	e, err := e.Compressed()
	if err != nil {
		return nil, nil, err
	}
	if e.compressed == nil {
		return h, e.Data, nil
	}
	h[headerContentEncoding] = []string{encodingZstd}
	return h, e.compressed, nil
}

// Compressed does beforehand what takes time in Encode, for who has little of it by then: the plan of 100 000 endpoints is
// megabytes. The copy that it gives is the same event.
func (e Event) Compressed() (Event, error) {
	if e.compressed != nil || len(e.Data) <= compressOver {
		return e, nil
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return Event{}, fmt.Errorf("compress event %s of %q: %w", e.Type, e.Subject, err)
	}
	e.compressed = enc.EncodeAll(e.Data, nil)
	return e, nil
}

// Decode reads a stored message. A message without an envelope is an old agent's or CLI's: its type is one of the
// TypeWire constants and its data the body as sent. Errors are *DecodeError.
func Decode(subject string, h Header, body []byte) (Event, error) {
	if first(h, headerSpecVersion) == "" {
		return decodeWire(subject, body)
	}
	e, err := decodeEnvelope(h, body)
	if err == nil && e.NATSSubject() != subject {
		err = fmt.Errorf("envelope belongs on %s", e.NATSSubject())
	}
	if err != nil {
		return Event{}, &DecodeError{RawSubject: subject, Type: first(h, headerType), Err: err}
	}
	return e, nil
}

// decodeEnvelope goes over the headers once: a look-up for each field is a tenth of what a projector spends on a message.
func decodeEnvelope(h Header, body []byte) (Event, error) {
	var e Event
	var version, encoding string
	var err error
	for name, values := range h {
		if len(values) == 0 {
			continue
		}
		var field error
		switch value := values[0]; name {
		case headerSpecVersion:
			version = value
		case headerID:
			e.ID = value
		case headerType:
			e.Type = value
		case headerTime:
			e.Time, field = time.Parse(time.RFC3339Nano, value)
			e.Time = e.Time.UTC()
		case headerSource:
			e.Source, field = percentDecode(value)
		case headerSubject:
			e.Subject, field = percentDecode(value)
		case headerActor:
			var actor string
			actor, field = percentDecode(value)
			e.Actor = Actor(actor)
		case headerOrigin:
			e.Origin, field = percentDecode(value)
		case headerCausation:
			e.CausationID, field = percentDecode(value)
		case headerCorrelation:
			e.CorrelationID, field = percentDecode(value)
		case HeaderTraceParent:
			e.TraceParent, field = percentDecode(value)
		case headerContentEncoding:
			encoding = value
		}
		if field != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", name, field))
		}
	}
	switch {
	case err != nil:
		return Event{}, err
	case version != specVersion:
		return Event{}, fmt.Errorf("ce-specversion %q is not %s", version, specVersion)
	case e.ID == "" || e.Type == "" || e.Subject == "" || len(h[headerTime]) == 0:
		return Event{}, errors.New("ce-id, ce-type, ce-subject or ce-time is missing")
	}
	e.Data, err = decodeBody(encoding, body)
	return e, err
}

func decodeBody(encoding string, body []byte) ([]byte, error) {
	switch encoding {
	case "":
		return body, nil
	case encodingZstd:
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxDecoded))
		if err != nil {
			return nil, fmt.Errorf("decompress: %w", err)
		}
		defer dec.Close()
		data, err := dec.DecodeAll(body, nil)
		if err != nil {
			return nil, fmt.Errorf("decompress: %w", err)
		}
		return data, nil
	default:
		return nil, fmt.Errorf("unknown content-encoding %q", encoding)
	}
}

func decodeWire(subject string, body []byte) (Event, error) {
	e := Event{Data: body}
	switch {
	case strings.HasPrefix(subject, PrefixStarted):
		e.Type = TypeWireStarted
	case strings.HasPrefix(subject, PrefixResults):
		e.Type = TypeWireResult
	case strings.HasPrefix(subject, PrefixAudit):
		e.Type = TypeWireAudit
	default:
		return Event{}, &DecodeError{RawSubject: subject, Err: errors.New("no envelope on a subject that only our services write")}
	}
	return e, nil
}

func first(h Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// percentEncode encodes a header value as the HTTP binding of CloudEvents 1.0 says (3.1.3.2): every byte of a
// character outside printable ASCII, and space, double quote and percent, becomes %XX.
func percentEncode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c > 0x20 && c < 0x7f && c != '"' && c != '%' {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
	}
	return b.String()
}

func percentDecode(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", fmt.Errorf("%q ends within an escape", s)
		}
		v, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("%q has a bad escape: %w", s, err)
		}
		b.WriteByte(byte(v))
		i += 2
	}
	if !utf8.ValidString(b.String()) {
		return "", fmt.Errorf("%q is not UTF-8", s)
	}
	return b.String(), nil
}
