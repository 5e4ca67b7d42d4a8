package rest

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"kanade/libs/events"
)

// staticIdentity is who presents the static token; it is an administrator.
const staticIdentity = "service-token"

// authenticated lets requests pass that need no token or bear the right one.
func authenticated(token string, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The escaped path is what routes are matched by.
		path := r.URL.EscapedPath()
		if !strings.HasPrefix(path, "/api/") || path == "/api/version" {
			next.ServeHTTP(w, r)
			return
		}
		given, ok := bearer(r.Header.Get("Authorization"))
		got := sha256.Sum256([]byte(given))
		if !ok || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			writeFailure(w, r, fail(http.StatusUnauthorized, "unauthorized: send the API's token as `Authorization: Bearer <token>`"))
			return
		}
		ctx := context.WithValue(r.Context(), actorKey{}, events.NewActor("user", staticIdentity))
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// bearer reads the token of an Authorization header; the scheme is compared byte for byte.
func bearer(header string) (string, bool) {
	token, ok := strings.CutPrefix(header, "Bearer ")
	token = strings.TrimSpace(token)
	return token, ok && token != ""
}

type actorKey struct{}

func actorOf(ctx context.Context) events.Actor {
	a, _ := ctx.Value(actorKey{}).(events.Actor)
	return a
}
