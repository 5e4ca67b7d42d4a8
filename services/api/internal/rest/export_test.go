package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/libs/readmodel"
)

// What breaks off in the middle does not look like something whole; what fails at the start is an error as any other.
func TestExportBreaksOff(t *testing.T) {
	type row struct {
		N int `json:"n"`
	}
	var log bytes.Buffer
	pages := 0
	s := &server{Config: Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}}
	web := httptest.NewServer(s.dispatch("/", methods{http.MethodGet: func(w http.ResponseWriter, r *http.Request, _ string) error {
		n := 0
		l := listing{formNDJSON, readmodel.Page{Limit: readmodel.All}}
		return writeList(w, r, l, sheetOf[row]("rows"), func(context.Context, readmodel.Page) ([]row, string, error) {
			if n++; n > pages {
				return nil, "", errors.New("the disk is gone")
			}
			return make([]row, exportStep), "more", nil
		})
	}}))
	defer web.Close()
	get := func() (int, []byte, error) {
		res, err := http.Get(web.URL)
		require.NoError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return res.StatusCode, body, err
	}
	status, _, err := get()
	require.NoError(t, err)
	require.Equal(t, http.StatusInternalServerError, status)

	pages = 3
	status, body, err := get()
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, http.StatusOK, status)
	web.Close() // whoever answered has said so by then
	require.Contains(t, log.String(), "an answer broke off")
	require.Contains(t, log.String(), "export rows: the disk is gone")
	for line := range bytes.Lines(body) {
		if bytes.HasSuffix(line, []byte("\n")) {
			require.True(t, json.Valid(line), "%s", line)
		}
	}
}

// Who waits has what was found, also while more is looked for.
func TestExportSendsEachPage(t *testing.T) {
	type row struct {
		N int `json:"n"`
	}
	for _, as := range []form{formCSV, formNDJSON} {
		read := make(chan struct{})
		s := &server{Config: Config{Logger: slog.New(slog.DiscardHandler)}}
		web := httptest.NewServer(s.dispatch("/", methods{http.MethodGet: func(w http.ResponseWriter, r *http.Request, _ string) error {
			n := 0
			return writeList(w, r, listing{as, readmodel.Page{Limit: readmodel.All}}, sheetOf[row]("rows"), func(context.Context, readmodel.Page) ([]row, string, error) {
				if n++; n == 1 {
					return []row{{7}}, "more", nil
				}
				<-read
				return []row{{8}}, "", nil
			})
		}}))
		res, err := http.Get(web.URL)
		require.NoError(t, err)
		whole := map[form]string{formCSV: "n\n7\n8\n", formNDJSON: `{"n":7}` + "\n" + `{"n":8}` + "\n"}[as]
		first := make([]byte, len(whole)/2+map[form]int{formCSV: 1}[as])
		_, err = io.ReadFull(res.Body, first)
		require.NoError(t, err)
		close(read)
		rest, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Equal(t, whole, string(first)+string(rest))
		require.NoError(t, res.Body.Close())
		web.Close()
	}
}

// An answer of HTTP/1.0 that breaks off looks like a whole one.
func TestExportNeedsHTTP11(t *testing.T) {
	s := &server{Config: Config{Logger: slog.New(slog.DiscardHandler)}}
	h := s.dispatch("/", methods{http.MethodGet: func(w http.ResponseWriter, r *http.Request, _ string) error {
		q := queryOf(r)
		return writeList(w, r, q.list(r, 1), sheet{}, func(context.Context, readmodel.Page) ([]int, string, error) { return []int{1}, "", nil })
	}})
	for query, status := range map[string]int{"?format=csv": http.StatusHTTPVersionNotSupported, "?format=ndjson": http.StatusHTTPVersionNotSupported, "": http.StatusOK} {
		r := httptest.NewRequest(http.MethodGet, "/"+query, nil)
		r.Proto, r.ProtoMinor = "HTTP/1.0", 0
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, status, w.Code, query)
		require.Equal(t, status != http.StatusOK, bytes.Contains(w.Body.Bytes(), []byte("HTTP/1.1")), query)
	}
}
