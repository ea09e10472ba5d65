package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"forebay/internal/record"
)

// maxBody bounds what a changing request may send.
const maxBody = 1 << 20

// NewServer serves a node. Token is what changing requests must bring as
// "Authorization: Bearer …"; "" lets loopback clients change things without.
func NewServer(node Node, token string, metrics prometheus.Gatherer) *http.Server {
	s := &surface{node: node, token: token}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"status": "healthy"})
	})
	mux.HandleFunc("GET /-/ready", s.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, node.Status()) })
	mux.HandleFunc("GET /api/v1/batches", s.batches)
	mux.HandleFunc("GET /api/v1/parked", func(w http.ResponseWriter, _ *http.Request) {
		list, err := node.Parked()
		respond(w, list, err)
	})
	// The bytes of a record are Kafka's to guard: not everyone who reaches this may read them.
	mux.HandleFunc("GET /api/v1/parked/{lane}/{id}", s.changing(s.parkedRecord))
	mux.HandleFunc("GET /api/v1/gaps", func(w http.ResponseWriter, _ *http.Request) {
		list, err := node.Gaps()
		respond(w, list, err)
	})
	mux.HandleFunc("GET /api/v1/config", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/toml")
		_, _ = w.Write([]byte(node.Config()))
	})
	mux.HandleFunc("POST /api/v1/sinks/{name}/pause", s.changing(s.pause(true)))
	mux.HandleFunc("POST /api/v1/sinks/{name}/resume", s.changing(s.pause(false)))
	mux.HandleFunc("POST /api/v1/sinks/{name}/remove", s.changing(s.remove))
	mux.HandleFunc("POST /api/v1/parked/discard", s.changing(s.discard))
	mux.HandleFunc("POST /api/v1/gaps/skip", s.changing(s.skip))
	// Profiles tell much and cost something: they are guarded as changes are.
	mux.HandleFunc("GET /debug/pprof/", s.changing(pprof.Index))
	mux.HandleFunc("GET /debug/pprof/profile", s.changing(pprof.Profile))
	mux.HandleFunc("GET /debug/pprof/trace", s.changing(pprof.Trace))
	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusForbidden, Problem{"this changes something, and a page of another site asks for it"})
	}))
	return &http.Server{
		Handler:           sameOrigin.Handler(asProblems(mux)),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
}

// asProblems gives what the mux refuses the body of every other refusal.
func asProblems(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern == "" {
			w = &unserved{ResponseWriter: w}
		}
		mux.ServeHTTP(w, r)
	})
}

// unserved answers for a request that the mux has no handler for.
type unserved struct {
	http.ResponseWriter
	refused bool
}

func (u *unserved) WriteHeader(status int) {
	switch u.refused = status >= 400; {
	case status == http.StatusMethodNotAllowed:
		answer(u.ResponseWriter, status, Problem{"this address takes " + u.Header().Get("Allow")})
	case u.refused:
		answer(u.ResponseWriter, status, Problem{"there is nothing at this address"})
	default:
		u.ResponseWriter.WriteHeader(status)
	}
}

func (u *unserved) Write(p []byte) (int, error) {
	if u.refused {
		return len(p), nil
	}
	return u.ResponseWriter.Write(p)
}

type surface struct {
	node  Node
	token string
}

// SinkRemoval is the body of a sink's remove: the batch from which on the sink
// gives up, which must be its cursor.
type SinkRemoval struct {
	GivesUpFrom string `json:"givesUpFrom"`
}

// Discard is the body of parked/discard.
type Discard struct {
	Lane uint32   `json:"lane"`
	IDs  []uint64 `json:"ids"`
}

// Skip is the body of gaps/skip. Both are required: what is left out is not partition 0.
type Skip struct {
	Topic     string `json:"topic"`
	Partition *int32 `json:"partition"`
}

func (s *surface) ready(w http.ResponseWriter, _ *http.Request) {
	reasons := s.node.Ready()
	status := http.StatusOK
	if len(reasons) > 0 {
		status = http.StatusServiceUnavailable
	}
	answer(w, status, map[string]any{"ready": len(reasons) == 0, "reasons": append([]string{}, reasons...)})
}

func (s *surface) batches(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	number := func(name string, bits int, missing uint64) (uint64, error) {
		if !query.Has(name) {
			return missing, nil
		}
		n, err := strconv.ParseUint(query.Get(name), 10, bits)
		if err != nil {
			return 0, invalid(name + " takes a whole number")
		}
		return n, nil
	}
	lane, err1 := number("lane", 32, 0)
	before, err2 := number("before", 64, 0)
	limit, err3 := number("limit", 31, 50)
	if err := errors.Join(err1, err2, err3); err != nil {
		fail(w, err)
		return
	}
	page, err := s.node.Batches(uint32(lane), before, int(min(max(limit, 1), 1000)))
	respond(w, page, err)
}

func (s *surface) parkedRecord(w http.ResponseWriter, r *http.Request) {
	lane, err1 := strconv.ParseUint(r.PathValue("lane"), 10, 32)
	id, err2 := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err1 != nil || err2 != nil {
		fail(w, invalid("want /api/v1/parked/<lane>/<id>"))
		return
	}
	found, err := s.node.ParkedRecord(r.Context(), uint32(lane), id)
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, http.StatusOK, ShowRecord(found))
}

// ShowRecord gives a record the API's shape.
func ShowRecord(r record.Record) Record {
	shown := Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp, Key: r.Key, Value: r.Value, Headers: [][2][]byte{}}
	for _, h := range r.Headers {
		shown.Headers = append(shown.Headers, [2][]byte{h.Key, h.Value})
	}
	return shown
}

func (s *surface) pause(paused bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		respond(w, struct{}{}, s.node.PauseSink(r.Context(), r.PathValue("name"), paused))
	}
}

func (s *surface) remove(w http.ResponseWriter, r *http.Request) {
	body, err := decode[SinkRemoval](w, r)
	if err != nil {
		fail(w, err)
		return
	}
	from, err := record.ParseBatchID(body.GivesUpFrom)
	if err != nil {
		fail(w, invalid(err.Error()))
		return
	}
	respond(w, struct{}{}, s.node.RemoveSink(r.Context(), r.PathValue("name"), from))
}

func (s *surface) discard(w http.ResponseWriter, r *http.Request) {
	body, err := decode[Discard](w, r)
	if err != nil {
		fail(w, err)
		return
	}
	respond(w, struct{}{}, s.node.DiscardParked(r.Context(), body.Lane, body.IDs))
}

func (s *surface) skip(w http.ResponseWriter, r *http.Request) {
	body, err := decode[Skip](w, r)
	if err != nil {
		fail(w, err)
		return
	}
	if body.Topic == "" || body.Partition == nil {
		fail(w, invalid("say topic and partition of the gap to skip"))
		return
	}
	gap, err := s.node.SkipGap(r.Context(), body.Topic, *body.Partition)
	respond(w, gap, err)
}

// changing lets a request through that brings the token or, where there is none,
// comes from this machine and was meant for it. It guards what tells much, too.
func (s *surface) changing(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case s.token != "":
			given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			// Hashed first, so that the comparison tells nothing of the length.
			a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(s.token))
			if !ok || subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
				answer(w, http.StatusUnauthorized, Problem{"this needs the token: send it as \"Authorization: Bearer …\", or set FOREBAY_TOKEN for the commands"})
				return
			}
		case !loopback(r.RemoteAddr) || !loopback(hostOf(r)) || proxied(r):
			answer(w, http.StatusForbidden, Problem{"without node.token this is only possible from the node's own machine, by its loopback address"})
			return
		}
		next(w, r)
	}
}

// proxied tells whether somebody else's request is passed on, as by a web server on
// this machine: the connection is from here, and who asks is not.
func proxied(r *http.Request) bool {
	return r.Header.Get("Forwarded") != "" || r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Via") != ""
}

// hostOf is the address that the client believes it speaks to: a page of
// another site that resolves its own name to 127.0.0.1 gives itself away here.
func hostOf(r *http.Request) string {
	if _, _, err := net.SplitHostPort(r.Host); err == nil {
		return r.Host
	}
	return net.JoinHostPort(r.Host, "80")
}

func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func decode[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	var body T
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(&body)
	if err == nil && d.More() {
		err = errors.New("more than one value")
	}
	if err != nil {
		return body, invalid("the body of the request: " + err.Error())
	}
	return body, nil
}

func invalid(words string) error { return fmt.Errorf("%w: %s", ErrInvalid, words) }

func respond(w http.ResponseWriter, body any, err error) {
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, http.StatusOK, body)
}

func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	for known, code := range map[error]int{
		ErrNotFound: http.StatusNotFound, ErrConflict: http.StatusConflict, record.ErrRefused: http.StatusConflict,
		ErrNotLeader: http.StatusServiceUnavailable, record.ErrLeadLost: http.StatusServiceUnavailable,
		ErrInvalid: http.StatusBadRequest, record.ErrReleased: http.StatusGone,
	} {
		if errors.Is(err, known) {
			status = code
		}
	}
	answer(w, status, Problem{strings.ReplaceAll(err.Error(), "\n", "; ")})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(body)
}
