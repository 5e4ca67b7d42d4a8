package api

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// stopTimeout bounds how long requests in flight may take to end.
const stopTimeout = 5 * time.Second

// front is the HTTP server. It answers from the moment that the port is bound: until the broker has been reached, that
// the API lives and can't do anything yet, so that nobody hangs on a connection that is accepted by nobody.
type front struct {
	listener net.Listener
	server   *http.Server
	handler  atomic.Pointer[http.Handler]
	broke    chan error
	once     sync.Once
	logger   *slog.Logger
}

func newFront(l net.Listener, logger *slog.Logger) *front {
	f := &front{listener: l, broke: make(chan error, 1), logger: logger}
	f.answer(http.HandlerFunc(notYet))
	f.server = &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*f.handler.Load()).ServeHTTP(w, r) }),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	go func() { f.broke <- f.server.Serve(l) }()
	return f
}

func (f *front) answer(h http.Handler) { f.handler.Store(&h) }

func (f *front) address() string { return f.listener.Addr().String() }

// close lets requests in flight end, for stopTimeout.
func (f *front) close() {
	f.once.Do(func() {
		within, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if err := f.server.Shutdown(within); err != nil {
			f.logger.Warn("requests are cut off", "error", err)
			_ = f.server.Close()
		}
		<-f.broke
	})
}

func notYet(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/health", "/healthz":
		_, _ = w.Write([]byte("ok"))
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "the API has not reached the broker yet", http.StatusServiceUnavailable)
	}
}
