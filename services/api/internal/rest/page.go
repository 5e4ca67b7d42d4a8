package rest

import (
	_ "embed"
	"net/http"
)

//go:embed page.html
var page []byte

// getPage says what runs here, for whoever opens the address in a browser.
func (s *server) getPage(w http.ResponseWriter, _ *http.Request, _ string) error {
	w.Header().Set("Cache-Control", "no-cache")
	return writeBytes(w, "text/html; charset=utf-8", page)
}
