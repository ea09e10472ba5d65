package peer

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestJudge(t *testing.T) {
	me := hello{oldest: 2, newest: 3, gateway: "shop", id: Identity{"n1", [16]byte{1}}, lanes: 3, release: "0.3.0"}
	them := func(change func(*hello)) hello {
		h := hello{
			oldest: 2, newest: 3, gateway: "shop", id: Identity{"n2", [16]byte{2}}, lanes: 3, release: "0.3.0",
			wants: "n1", purpose: forRaft, lane: 1,
		}
		change(&h)
		return h
	}
	for _, tc := range []struct {
		name  string
		them  hello
		party func(*party)
		want  *Refusal
	}{
		{name: "a peer", them: them(func(*hello) {})},
		{name: "the version before", them: them(func(h *hello) { h.oldest, h.newest = 1, 2 })},
		{name: "the version after", them: them(func(h *hello) { h.oldest, h.newest = 3, 4 })},
		{name: "it follows our lanes", them: them(func(h *hello) { h.lanes = 0 })},
		{name: "we follow its lanes", them: them(func(h *hello) { h.lanes = 7 }), party: func(p *party) { p.self.lanes = 0 }},
		{name: "control needs no lane", them: them(func(h *hello) { h.purpose, h.lane = forControl, 9 })},
		{
			name: "two versions before", them: them(func(h *hello) { h.oldest, h.newest, h.release = 1, 1, "0.1.0" }),
			want: &Refusal{CodeVersion, "n2 (release 0.1.0) speaks peer protocol 1, n1 (release 0.3.0) speaks 2 to 3: upgrade one minor version at a time", "n1"},
		},
		{
			name: "two versions after", them: them(func(h *hello) { h.oldest, h.newest, h.release = 4, 5, "0.5.0" }),
			want: &Refusal{CodeVersion, "n2 (release 0.5.0) speaks peer protocol 4 to 5, n1 (release 0.3.0) speaks 2 to 3: upgrade one minor version at a time", "n1"},
		},
		{
			name: "another gateway", them: them(func(h *hello) { h.gateway = "other" }),
			want: &Refusal{CodeGateway, `n2 belongs to gateway "other", n1 to "shop": correct cluster.peers or node.gateway`, "n1"},
		},
		{
			name: "itself", them: them(func(h *hello) { h.id = Identity{"n1", [16]byte{1}} }),
			want: &Refusal{CodeSelf, "node n1 has connected to itself: in cluster.peers its own address stands under another id", "n1"},
		},
		{
			name: "its own id, another directory", them: them(func(h *hello) { h.id = Identity{"n1", [16]byte{9}} }),
			want: &Refusal{CodeSelf, "two processes run as node n1, with data directories n1/01000000 and n1/09000000: stop one of them, or give it another node.id", "n1"},
		},
		{
			name: "an unknown id", them: them(func(h *hello) { h.id.Node = "n9" }),
			want: &Refusal{CodeUnknown, `"n9" is neither in cluster.peers of n1 nor a member of the cluster: add it there, or by 'forebay operator add'`, "n1"},
		},
		{
			name: "a certificate of somebody else", them: them(func(*hello) {}),
			party: func(p *party) { p.names = func(node string) error { return errors.New("names n3, not " + node) } },
			want:  &Refusal{CodeName, "names n3, not n2", "n1"},
		},
		{
			name: "another node answers", them: them(func(*hello) {}), party: func(p *party) { p.meant = "n3" },
			want: &Refusal{CodeMisdirected, "n3 was meant, and n2 answers: correct the address of n3", "n1"},
		},
		{
			name: "it means another node", them: them(func(h *hello) { h.wants = "n3" }),
			want: &Refusal{CodeMisdirected, "n3 was meant, and this is n1: correct the address of n3", "n1"},
		},
		{
			name: "other lanes", them: them(func(h *hello) { h.lanes = 2 }),
			want: &Refusal{CodeLanes, "n2 has 2 lanes, n1 has 3: leave cluster.lanes out, or set it to what the cluster was formed with", "n1"},
		},
		{
			name: "a purpose of later", them: them(func(h *hello) { h.purpose = 7 }),
			want: &Refusal{CodeVersion, "streams of kind 7 are not known to release 0.3.0 of n1", "n1"},
		},
		{
			name: "a lane that is not open", them: them(func(h *hello) { h.lane = 2 }),
			want: &Refusal{CodeLane, "lane 2 is not open on n1", "n1"},
		},
		{
			name: "the first reason counts", them: them(func(h *hello) { h.gateway, h.lanes, h.id.Node = "other", 1, "n9" }),
			want: &Refusal{CodeGateway, `n9 belongs to gateway "other", n1 to "shop": correct cluster.peers or node.gateway`, "n1"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := party{
				self:  me,
				known: func(node string) bool { return node == "n2" || node == "n3" },
				open:  func(lane uint32) bool { return lane < 2 },
			}
			if tc.party != nil {
				tc.party(&p)
			}
			if diff := cmp.Diff(tc.want, p.judge(tc.them)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestSkewIsTakenAtTheMiddle(t *testing.T) {
	asked := time.UnixMilli(1000)
	if got := skewOf(6100, asked, asked.Add(200*time.Millisecond)); got != 5*time.Second {
		t.Errorf("skew %s, want 5s", got)
	}
}

func TestLoopback(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:8421": true, "127.9.0.1:1": true, "[::1]:8421": true, "localhost:8421": true, "[::ffff:127.0.0.1]:1": true,
		"10.0.0.1:8421": false, "0.0.0.0:8421": false, ":8421": false, "[::]:8421": false, "n1.example:8421": false, "localhost.example:1": false,
	} {
		if got, err := Loopback(address); err != nil || got != want {
			t.Errorf("Loopback(%q) = %t, %v", address, got, err)
		}
	}
	_, err := Loopback("127.0.0.1")
	mustFail(t, err, `"127.0.0.1" is not host:port`)
}
