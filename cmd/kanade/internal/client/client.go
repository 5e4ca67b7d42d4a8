package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// requestTimeout bounds one request and its answer. The API waits at most 5 s for the read model, 10 s for the broker.
const requestTimeout = 30 * time.Second

// headerTimeout bounds the wait for an answer to begin, streams included.
const headerTimeout = 25 * time.Second

// maxAnswer bounds an answer that is read whole, in bytes: two outputs of 8 MiB in JSON, and room.
const maxAnswer = 64 << 20

// Content types of bodies.
const (
	JSON = "application/json"
	YAML = "application/yaml"
)

// Client of one API.
type Client struct {
	base, token, tokenSource string
	asOf                     string
	http                     *http.Client
}

// New makes a client of the API at base ("http://127.0.0.1:8080", a path before /api is kept). Without a token requests
// go out bare. The token's source ("KANADE_AUTH_TOKEN") is named when the API does not accept it.
func New(base, token, tokenSource string) (*Client, error) {
	if !strings.Contains(base, "://") {
		return nil, fmt.Errorf("backend URL %q: http:// is missing: did you mean http://%s?", base, base)
	}
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("backend URL: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("backend URL %q: expected http://host:port or https://host:port", base)
	}
	return &Client{base: strings.TrimRight(base, "/"), token: token, tokenSource: tokenSource, http: &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
			ResponseHeaderTimeout: headerTimeout,
		},
	}}, nil
}

// AsOf is the same client asking as of a past moment, a LOG sequence or a time; empty for the present. It sends nothing that
// changes anything.
func (c *Client) AsOf(moment string) *Client {
	then := *c
	then.asOf = moment
	return &then
}

// moment adds what the client asks as of to a query. A link to a next page has it.
func (c *Client) moment(r Request) (url.Values, error) {
	switch {
	case c.asOf == "":
		return r.Query, nil
	case r.Method != http.MethodGet:
		return nil, fmt.Errorf("%s %s: as of a past moment nothing is changed", r.Method, r.Path)
	case strings.Contains(r.Path, "?"):
		return r.Query, nil
	}
	query := url.Values{"as_of": {c.asOf}}
	maps.Copy(query, r.Query)
	return query, nil
}

// patient is the same client without a bound on the beginning of an answer.
func (c *Client) patient() *Client {
	t := c.http.Transport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = 0
	p := *c
	p.http = &http.Client{Transport: t}
	return &p
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// URL is where the API is, without a slash at the end.
func (c *Client) URL() string { return c.base }

// Path joins segments to a path, each escaped: ids may hold slashes.
func Path(segments ...string) string {
	var b strings.Builder
	for _, s := range segments {
		b.WriteString("/" + url.PathEscape(s))
	}
	return b.String()
}

// Request is what [Client.Do] sends. A POST gets a new Idempotency-Key unless one is given.
type Request struct {
	Method, Path string
	Query        url.Values
	// Body with its ContentType; none if ContentType is empty.
	Body        []byte
	ContentType string
	// IfMatch is the entity tag that the document must bear that the request changes; empty: any, or none.
	IfMatch string
	// IfNew asks for there to be none yet.
	IfNew bool
	// MinSequence is the LOG sequence that a read must have seen; 0 asks for no particular one.
	MinSequence    uint64
	IdempotencyKey string
	// Wait is how long the API holds the request on purpose, beside the usual time.
	Wait time.Duration

	lastEventID string
}

// Answer of a request that the API granted.
type Answer struct {
	Body []byte
	// Sequence is the LOG sequence that a write made or that a read had seen; 0 when the API did not say.
	Sequence uint64
	// ETag is the entity tag of a document; empty where there is none.
	ETag string
	// Next is the path and query of the next page of a list; empty on the last one.
	Next string
}

// Do sends one request and reads the whole answer. Errors are *Unreachable, *Refused, or the context's.
func (c *Client) Do(ctx context.Context, r Request) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout+r.Wait)
	defer cancel()
	if r.Wait > 0 {
		patient := c.patient()
		defer patient.Close()
		c = patient
	}
	res, err := c.send(ctx, r, JSON)
	if err != nil {
		return Answer{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return Answer{}, &Unreachable{URL: c.base, Err: err}
	}
	if len(body) > maxAnswer {
		return Answer{}, fmt.Errorf("%s %s: the answer is over %d MiB; ask for less (--limit)", r.Method, r.Path, maxAnswer>>20)
	}
	return Answer{Body: body, Sequence: sequenceOf(res.Header), ETag: res.Header.Get("ETag"), Next: c.next(res.Header)}, nil
}

// sequenceOf is what the API says of the log: what a write made, or what a read had seen.
func sequenceOf(h http.Header) (seq uint64) {
	for _, name := range []string{"Kanade-Sequence", "Kanade-Applied-Sequence"} {
		if seq == 0 {
			seq, _ = strconv.ParseUint(h.Get(name), 10, 64)
		}
	}
	return seq
}

// Download sends one request and copies the answer to w, however long it is, and gives its length in bytes. It waits for
// the beginning as long as ctx lets it: an answer may be looked for. An answer that breaks off is an error.
func (c *Client) Download(ctx context.Context, r Request, w io.Writer) (int64, error) {
	patient := c.patient()
	defer patient.Close()
	res, err := patient.send(ctx, r, JSON)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	to := &sink{Writer: w}
	n, err := io.Copy(to, res.Body)
	if err != nil && to.err == nil && ctx.Err() == nil {
		err = fmt.Errorf("the answer of %s broke off: %w", c.base, err)
	}
	return n, err
}

// send sends a request and returns a granted answer with its body open.
func (c *Client) send(ctx context.Context, r Request, accept string) (*http.Response, error) {
	query, err := c.moment(r)
	if err != nil {
		return nil, err
	}
	target := c.base + r.Path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, target, bytes.NewReader(r.Body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.Method, r.Path, err)
	}
	c.setHeaders(req.Header, r, accept)
	res, err := c.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, context.Canceled) {
			return nil, cause
		}
		return nil, &Unreachable{URL: c.base, Err: err}
	}
	if res.StatusCode >= 200 && res.StatusCode <= 299 {
		return res, nil
	}
	defer res.Body.Close()
	return nil, c.refused(r, res)
}

func (c *Client) setHeaders(h http.Header, r Request, accept string) {
	h.Set("Accept", accept)
	h.Set("X-Kanade-Source", "cli")
	if c.token != "" {
		h.Set("Authorization", "Bearer "+c.token)
	}
	if r.ContentType != "" {
		h.Set("Content-Type", r.ContentType)
	}
	if r.IfMatch != "" {
		h.Set("If-Match", r.IfMatch)
	}
	if r.IfNew {
		h.Set("If-None-Match", "*")
	}
	if r.MinSequence > 0 {
		h.Set("Kanade-Min-Sequence", strconv.FormatUint(r.MinSequence, 10))
	}
	if r.lastEventID != "" {
		h.Set("Last-Event-ID", r.lastEventID)
	}
	if r.Method == http.MethodPost {
		key := r.IdempotencyKey
		if key == "" {
			key = rand.Text()
		}
		h.Set("Idempotency-Key", key)
	}
}

// next reads `Link: <…>; rel="next"`. The target may be absolute or a path; what leads to another host is not followed,
// since the token would go there.
func (c *Client) next(h http.Header) string {
	for _, link := range strings.Split(strings.Join(h.Values("Link"), ","), ",") {
		target, params, _ := strings.Cut(strings.TrimSpace(link), ">")
		if !strings.HasPrefix(target, "<") || !strings.Contains(params, `rel="next"`) {
			continue
		}
		target = strings.TrimPrefix(target[1:], c.base)
		if strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "//") {
			return target
		}
	}
	return ""
}

// Pages asks for a list page by page and hands each page's body to fn, until the last one or an error.
func (c *Client) Pages(ctx context.Context, r Request, fn func(body []byte) error) error {
	for {
		a, err := c.Do(ctx, r)
		if err != nil {
			return err
		}
		if err := fn(a.Body); err != nil || a.Next == "" {
			return err
		}
		r.Path, r.Query = a.Next, nil
	}
}
