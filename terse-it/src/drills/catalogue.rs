//! The catalogue: every drill with what it breaks, what is expected then, what it needs and how long it takes.
//!
//! This is the one place where that is said: `cargo xtask drill list`, the page of the book and what a run prints are
//! made of it. The drills of the counting are in a table of their own, since most are run on several ways.

use std::fmt;
use std::time::Duration;

use super::clicks::CLICK_DRILLS;
use super::{
    Form, Stage, alias_race, all_down, celebrity, connections, expiry, first_start, limits, lost_answer, nodes,
    overload, paced, redis_faults, scan, shard_cut, stale_replica, stampede, visible,
};

/// By when all drills are to be through in the quick form, those that need the cluster beside those that don't.
pub const QUICK_LIMIT: Duration = Duration::from_secs(15 * 60);

/// What a drill needs besides terse and this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The cluster that `cargo xtask up cassandra` starts.
    pub cluster: bool,
    /// A Redis server, which the drill starts for itself.
    pub redis: bool,
    /// A RabbitMQ, which the drill starts for itself.
    pub broker: bool,
}

impl Needs {
    /// Nothing: its server has a SQLite file.
    pub(super) const NOTHING: Self = Self { cluster: false, redis: false, broker: false };
    /// The cluster alone.
    pub(super) const CLUSTER: Self = Self { cluster: true, ..Self::NOTHING };

    /// The same and a Redis.
    pub(super) const fn and_redis(self) -> Self {
        Self { redis: true, ..self }
    }

    /// The same and a broker.
    pub(super) const fn and_broker(self) -> Self {
        Self { broker: true, ..self }
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all =
            [(self.cluster, "the cluster"), (self.redis, "a Redis of its own"), (self.broker, "a RabbitMQ of its own")];
        let needed: Vec<&str> = all.into_iter().filter_map(|(needed, name)| needed.then_some(name)).collect();
        f.write_str(if needed.is_empty() { "nothing else" } else { "" })?;
        f.write_str(&needed.join(", "))
    }
}

/// About how long a drill takes, in seconds, on a machine of two cores that does nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takes {
    quick_s: u16,
    full_s: u16,
}

impl Takes {
    /// In this form.
    #[must_use]
    pub fn of(self, form: Form) -> Duration {
        Duration::from_secs(form.pick(self.quick_s, self.full_s).into())
    }
}

/// So long in the quick form, and in the full one.
pub(super) const fn takes(quick_s: u16, full_s: u16) -> Takes {
    Takes { quick_s, full_s }
}

/// Whether what a drill's load met can be drawn over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chart {
    /// There is a steady load, and its answers are drawn, the fault marked.
    Timeline,
    /// There is none, and this is why.
    None(&'static str),
}

/// One drill.
pub struct Drill {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it breaks, or asks too much of.
    pub breaks: &'static str,
    /// What is expected then, in one sentence. The drill checks it.
    pub hypothesis: &'static str,
    /// What it needs.
    pub needs: Needs,
    /// About how long it takes.
    pub takes: Takes,
    /// Whether there is a chart of it.
    pub chart: Chart,
    pub(super) run: fn(&mut Stage<'_>),
}

/// All drills, in the order in which they are run.
pub fn all() -> impl Iterator<Item = &'static Drill> {
    OTHERS.iter().chain(&CLICK_DRILLS)
}

/// The drill called `name`, or all of the group `name`, such as `clicks`; none if there is neither.
#[must_use]
pub fn find_all(name: &str) -> Vec<&'static Drill> {
    let of_group = |drill: &&Drill| drill.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
    match find(name) {
        Some(drill) => vec![drill],
        None if name == "clicks" => all().filter(of_group).collect(),
        None => Vec::new(),
    }
}

/// The drill called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Drill> {
    all().find(|drill| drill.name == name)
}

/// All drills but those of the counting.
static OTHERS: [Drill; 24] = [
    Drill {
        name: "kill-node",
        breaks: "kill -9 of one of three store nodes, which comes back later",
        hypothesis: "No redirect fails and no link that was acknowledged is lost, creates go on, and the node is of \
                     use again without help",
        needs: Needs::CLUSTER,
        takes: takes(60, 75),
        chart: Chart::Timeline,
        run: nodes::kill_node,
    },
    Drill {
        name: "pause-node",
        breaks: "SIGSTOP of one of three store nodes: it keeps its connections and says nothing",
        hypothesis: "Redirects that ask the store stay quick and not one is refused, while the node is found out and \
                     afterwards",
        needs: Needs::CLUSTER,
        takes: takes(25, 48),
        chart: Chart::Timeline,
        run: nodes::pause_node,
    },
    Drill {
        name: "two-nodes-down",
        breaks: "SIGSTOP, then kill -9, of two of three store nodes, so that no quorum is left",
        hypothesis: "Every existing link still redirects, creates and unknown codes are refused with Retry-After, and \
                     a server that has run before starts beside the one node",
        needs: Needs::CLUSTER,
        takes: takes(45, 102),
        chart: Chart::Timeline,
        run: nodes::two_nodes_down,
    },
    Drill {
        name: "all-down",
        breaks: "SIGSTOP, then kill -9, of all store nodes",
        hypothesis: "Links in memory redirect as before, the rest is refused quickly, all is normal again by itself",
        needs: Needs::CLUSTER,
        takes: takes(40, 155),
        chart: Chart::Timeline,
        run: all_down::all_down,
    },
    Drill {
        name: "stale-replica",
        breaks: "SIGSTOP of one store node during a create, an edit and a delete, longer than writes are held for it",
        hypothesis: "No read through any server shows the old state that this replica wakes up with",
        needs: Needs::CLUSTER,
        takes: takes(18, 22),
        chart: Chart::None("single reads beside one replica that is old: there is no load, and no rate to draw"),
        run: stale_replica::stale_replica,
    },
    Drill {
        name: "shard-cut",
        breaks: "a cut of all wires of one of two shards; then a start while the first shard is cut off",
        hypothesis: "Redirects on the other shard are all answered and not slower, new links go there, and the shard \
                     is back by itself",
        needs: Needs::CLUSTER,
        takes: takes(45, 91),
        chart: Chart::Timeline,
        run: shard_cut::shard_cut,
    },
    Drill {
        name: "alias-race",
        breaks: "nothing; 200 callers claim one alias at the same instant through two servers",
        hypothesis: "Exactly one of them gets the alias, and both servers agree on whose it is",
        needs: Needs::CLUSTER,
        takes: takes(8, 10),
        chart: Chart::None("all claims are made at one instant: there is no rate to draw"),
        run: alias_race::alias_race,
    },
    Drill {
        name: "first-start",
        breaks: "kill -9 of either of two servers, again and again, while they hold leased ids; both start at once on \
                 an empty keyspace before",
        hypothesis: "There is one schema and one key, kills lose ids as gaps that the audit finds, and no code is \
                     given twice",
        needs: Needs::CLUSTER,
        takes: takes(22, 40),
        chart: Chart::Timeline,
        run: first_start::first_start,
    },
    Drill {
        name: "lost-answer",
        breaks: "a cut of a shard's wires right after each message of a write in turn, so that its answer is lost",
        hypothesis: "Whoever asked for a create, an edit or a delete is told what really became of it, and nothing is \
                     made twice",
        needs: Needs::CLUSTER,
        takes: takes(13, 13),
        chart: Chart::None("one request at a time, each with another message lost: there is no rate to draw"),
        run: lost_answer::lost_answer,
    },
    Drill {
        name: "visible",
        breaks: "nothing; links are edited, disabled and deleted through one server while another is asked for them, \
                 Redis between",
        hypothesis: "The other server shows a change within a second, and neither ever shows anything older afterwards",
        needs: Needs::CLUSTER.and_redis(),
        takes: takes(24, 134),
        chart: Chart::Timeline,
        run: visible::with_redis,
    },
    Drill {
        name: "visible-no-redis",
        breaks: "the cache is missing: changes as in `visible`, without Redis",
        hypothesis: "The other server shows a change within a second, and neither ever shows anything older afterwards",
        needs: Needs::CLUSTER,
        takes: takes(28, 143),
        chart: Chart::Timeline,
        run: visible::without_redis,
    },
    Drill {
        name: "visible-paused-redis",
        breaks: "SIGSTOP of Redis during changes as in `visible`; it goes on with the old values in it",
        hypothesis: "The other server shows a change within a second, and neither ever shows anything older afterwards",
        needs: Needs::CLUSTER.and_redis(),
        takes: takes(23, 135),
        chart: Chart::Timeline,
        run: visible::with_paused_redis,
    },
    Drill {
        name: "redis-faults",
        breaks: "kill -9, SIGSTOP and return of Redis, which then holds old values of links changed meanwhile",
        hypothesis: "No redirect fails, changes made meanwhile are seen, and an old value of Redis never is, also by a \
                     server that starts then",
        needs: Needs::CLUSTER.and_redis(),
        takes: takes(21, 73),
        chart: Chart::Timeline,
        run: redis_faults::redis_faults,
    },
    Drill {
        name: "stampede",
        breaks: "nothing; 10,000 first requests for one code come at once, then a hot entry grows old under load again \
                 and again",
        hypothesis: "The rush costs one store read, and each time that the entry grows old costs one more",
        needs: Needs::NOTHING,
        takes: takes(7, 38),
        chart: Chart::Timeline,
        run: stampede::stampede,
    },
    Drill {
        name: "stampede-slow",
        breaks: "a store that is slow to answer while 10,000 first requests for one code come at once",
        hypothesis: "All of them wait for the one store read, and Redis is asked once and filled once",
        needs: Needs::CLUSTER.and_redis(),
        takes: takes(10, 14),
        chart: Chart::None("all requests are sent at one instant: there is no rate to draw"),
        run: stampede::stampede_slow,
    },
    Drill {
        name: "expiry",
        breaks: "nothing; links reach the instant at which they expire while two servers are asked for them",
        hypothesis: "A link is 302 before that instant and 410 from it on, wherever it is kept, on both servers",
        needs: Needs::CLUSTER.and_redis(),
        takes: takes(20, 113),
        chart: Chart::None("what counts is the answer on either side of one instant: there is no rate to draw"),
        run: expiry::expiry,
    },
    Drill {
        name: "scan",
        breaks: "nothing; somebody tries codes that nobody has, one after the other",
        hypothesis: "Hot links stay in memory, and memory and store reads stay bounded",
        needs: Needs::NOTHING,
        takes: takes(11, 44),
        chart: Chart::Timeline,
        run: scan::scan,
    },
    Drill {
        name: "celebrity",
        breaks: "nothing; nine of ten redirects are of one code",
        hypothesis: "That code costs Redis and the store nothing, and the others are answered as ever",
        needs: Needs::NOTHING.and_redis(),
        takes: takes(6, 33),
        chart: Chart::Timeline,
        run: celebrity::celebrity,
    },
    Drill {
        name: "limits-shared",
        breaks: "kill -9 of the Redis through which two servers share a rate limit that 64 clients press against",
        hypothesis: "With Redis they get what one limit allows, without it at most what each server allows alone, and \
                     nobody gets an error",
        needs: Needs::CLUSTER.and_redis(),
        takes: takes(20, 100),
        chart: Chart::Timeline,
        run: limits::shared,
    },
    Drill {
        name: "enumeration",
        breaks: "nothing; somebody tries random codes from ever new addresses of one network",
        hypothesis: "That network is stopped after what its window allows, and ten readers behind one other address \
                     never are",
        needs: Needs::NOTHING,
        takes: takes(3, 3),
        chart: Chart::Timeline,
        run: limits::enumeration,
    },
    Drill {
        name: "limits-flood",
        breaks: "nothing; requests come from 100,000 addresses, far more than a limit has room for",
        hypothesis: "Memory stays bounded, modest clients are served, and a greedy one stays stopped",
        needs: Needs::NOTHING,
        takes: takes(5, 5),
        chart: Chart::Timeline,
        run: limits::flood,
    },
    Drill {
        name: "limits-paced",
        breaks: "nothing; a leaky bucket is asked for more than it lets through",
        hypothesis: "Requests leave it evenly, one turn after the other, and no turn is given twice",
        needs: Needs::NOTHING,
        takes: takes(7, 84),
        chart: Chart::Timeline,
        run: paced::paced,
    },
    Drill {
        name: "overload",
        breaks: "a store that is slow to answer and asked for far more than it can do",
        hypothesis: "It does nearly all that it can, what is too much is shed, links in memory do not notice, and all \
                     is answered again at once when it is over",
        needs: Needs::CLUSTER,
        takes: takes(25, 165),
        chart: Chart::Timeline,
        run: overload::overload,
    },
    Drill {
        name: "idle-and-slow",
        breaks: "nothing; 10,000 connections idle and 1,000 send a byte now and then",
        hypothesis: "Redirects of others are as quick as ever, and such connections neither cost much nor last",
        needs: Needs::NOTHING,
        takes: takes(12, 52),
        chart: Chart::Timeline,
        run: connections::idle_and_slow,
    },
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn every_drill_has_a_name_of_its_own_and_is_found_by_it() {
        for drill in all() {
            assert!(std::ptr::eq(find(drill.name).unwrap(), drill), "{}", drill.name);
            assert!(drill.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
        }
        assert!(find("no-such-drill").is_none());
    }

    #[test]
    fn the_click_drills_are_found_by_one_name() {
        let names = |name| find_all(name).iter().map(|drill| drill.name).collect::<Vec<_>>();
        assert_eq!(names("scan"), ["scan"]);
        assert!(names("clicks").len() >= 7 && names("clicks").iter().all(|name| name.starts_with("clicks-")));
        assert!(names("visible-no").is_empty() && names("").is_empty() && names("click").is_empty());
    }

    #[test]
    fn every_drill_says_what_it_breaks_what_is_expected_and_how_long_it_takes() {
        for drill in all() {
            let Drill { name, breaks, hypothesis, takes, chart, .. } = drill;
            assert!(breaks.len() > 20 && !breaks.ends_with('.'), "{name}: {breaks}");
            let sentence = hypothesis.starts_with(|first: char| first.is_uppercase()) && !hypothesis.contains(". ");
            assert!(sentence && hypothesis.len() > 30 && !hypothesis.ends_with('.'), "{name}: {hypothesis}");
            assert!(takes.quick_s > 0 && takes.quick_s <= takes.full_s, "{name}: {takes:?}");
            let why = if let Chart::None(why) = chart { why } else { "there is a timeline to draw" };
            assert!(why.len() > 20, "{name}: {why}");
        }
    }

    #[test]
    fn all_drills_in_the_quick_form_take_no_longer_than_is_promised() {
        for cluster in [true, false] {
            let lane = all().filter(|drill| drill.needs.cluster == cluster);
            let sum: Duration = lane.map(|drill| drill.takes.of(Form::Quick)).sum();
            assert!(sum <= QUICK_LIMIT, "with the cluster: {cluster}: {sum:?}");
        }
    }

    #[test]
    fn what_is_needed_is_told_in_words() {
        assert_eq!(Needs::NOTHING.to_string(), "nothing else");
        assert_eq!(Needs::CLUSTER.and_redis().to_string(), "the cluster, a Redis of its own");
        assert_eq!(Needs::NOTHING.and_broker().to_string(), "a RabbitMQ of its own");
    }

    /// The texts of the workspace: README and so on, and the pages of the book.
    fn texts() -> Vec<(PathBuf, String)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut folders = vec![root.join("docs"), root.join("deploy")];
        let mut files: Vec<PathBuf> =
            ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root.join(name)).into();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let is_folder = entry.file_type().unwrap().is_dir();
                (if is_folder { &mut folders } else { &mut files }).push(entry.path());
            }
        }
        files.retain(|path| path.extension().is_some_and(|name| name == "md" || name == "toml" || name == "yml"));
        files.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
    }

    #[test]
    fn every_drill_that_a_text_names_exists() {
        const COMMAND: &str = "cargo xtask drill ";
        let words = ["all", "list", "page", "NAME", "SCENARIO"];
        let mut named = 0;
        for (path, text) in texts() {
            // A line may end within the command.
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            for (at, _) in text.match_indices(COMMAND) {
                let rest = &text[at + COMMAND.len()..];
                let name = rest.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-').next().unwrap();
                let known = words.contains(&name) || !find_all(name).is_empty();
                assert!(known, "{}: there is no drill '{name}'", path.display());
                named += 1;
            }
        }
        assert!(named > 20, "only {named} were found");
    }
}
