package client_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"kanade/cmd/kanade/internal/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// api serves fn and gives a client of it.
func api(t *testing.T, fn http.HandlerFunc) *client.Client {
	t.Helper()
	s := httptest.NewServer(fn)
	t.Cleanup(s.Close)
	c, err := client.New(s.URL+"/", "secret", "the test")
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func TestDoSaysWhoAsks(t *testing.T) {
	c := api(t, func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "Bearer secret", r.Header.Get("Authorization"))
		require.Equal(t, "cli", r.Header.Get("X-Kanade-Source"))
		require.Equal(t, "application/yaml", r.Header.Get("Content-Type"))
		require.Equal(t, "7", r.Header.Get("Kanade-Min-Sequence"))
		require.NotEmpty(t, r.Header.Get("Idempotency-Key"))
		require.Equal(t, "/api/jobs/a%2Fb%20c", r.URL.EscapedPath())
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		w.Header().Set("Kanade-Sequence", "12")
		_, err = w.Write(body)
		require.NoError(t, err)
	})
	a, err := c.Do(t.Context(), client.Request{
		Method: "POST", Path: client.Path("api", "jobs", "a/b c"), Body: []byte("{}"), ContentType: client.YAML, MinSequence: 7,
	})
	require.NoError(t, err)
	require.Equal(t, client.Answer{Body: []byte("{}"), Sequence: 12}, a)
}

func TestDoRefusals(t *testing.T) {
	tests := []struct {
		name, kind, body string
		status           int
		want             string
	}{
		{"sentence", "text/plain; charset=utf-8", "job hello is not registered\n", 404, "job hello is not registered (404 Not Found)"},
		{"problem", "application/problem+json", `{"title":"Bad","detail":"two things","errors":[{"path":"a.b","line":3,"message":"no"},{"message":"never"}]}`,
			422, "a.b: no (line 3); never (422 Unprocessable Entity)"},
		{"title alone", "application/problem+json", `{"title":"Conflict"}`, 409, "Conflict (409 Conflict)"},
		{"page of something else", "text/html", "<html>", 502, "GET /x was refused (502 Bad Gateway)"},
		{"broken problem", "application/problem+json", "{", 400, "GET /x was refused (400 Bad Request)"},
		{"wrong token", "", "no", 401, "no (401 Unauthorized). The token came from the test; is it the one of "},
		{"not ready", "", "", 503, "/readyz says what is missing"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := api(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Type"] = []string{test.kind}
				w.WriteHeader(test.status)
				_, err := io.WriteString(w, test.body)
				require.NoError(t, err)
			})
			_, err := c.Do(t.Context(), client.Request{Method: "GET", Path: "/x"})
			var refused *client.Refused
			require.ErrorAs(t, err, &refused)
			require.Equal(t, test.status, refused.Status)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestDoNobodyListens(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	c, err := client.New(s.URL, "", "")
	require.NoError(t, err)
	s.Close()
	_, err = c.Do(t.Context(), client.Request{Method: "GET", Path: "/x"})
	var unreachable *client.Unreachable
	require.ErrorAs(t, err, &unreachable)
	require.ErrorContains(t, err, "kanade up")
}

func TestNewRefusesOtherURLs(t *testing.T) {
	for _, url := range []string{"", "127.0.0.1:8080", "ftp://x", "http://", "http://[::1"} {
		_, err := client.New(url, "", "")
		require.ErrorContains(t, err, "backend URL", url)
	}
}

func TestPages(t *testing.T) {
	c := api(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("cursor") {
		case "":
			w.Header().Set("Link", `</list?cursor=a&limit=2>; rel="next"`)
		case "a":
			w.Header().Set("Link", `<http://elsewhere.example/list?cursor=b>; rel="next"`) // the token must not go there
		}
		_, err := io.WriteString(w, r.URL.RawQuery)
		require.NoError(t, err)
	})
	var pages []string
	err := c.Pages(t.Context(), client.Request{Method: "GET", Path: "/list", Query: map[string][]string{"limit": {"2"}}}, func(body []byte) error {
		pages = append(pages, string(body))
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, []string{"limit=2", "cursor=a&limit=2"}, pages)
}
