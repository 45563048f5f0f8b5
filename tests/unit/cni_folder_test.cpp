// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "cni/install/folder.h"
#include "cni/install/installer.h"
#include "tests/unit/cni_folder_fixture.h"

namespace sidetrack::cni::install {
namespace {

using std::chrono::milliseconds;

class CniFolder : public CniFolderTest {};

ino_t inode_of(const std::filesystem::path& path) {
  struct stat status {};
  EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
  return status.st_ino;
}

TEST_F(CniFolder, the_first_configuration_by_bytes_gets_the_entry) {
  put("10-a.conflist", list("a"));
  put("10-B.conflist", list("b", "upper"));
  put("05-x.conflist.bak", list("x"));
  put("09-y.yaml", list("y"));
  ST_ASSERT_VALUE(const auto applied, apply(settings));
  EXPECT_EQ(applied.file, "10-B.conflist");
  EXPECT_EQ(applied.network, "upper");
  EXPECT_EQ(applied.cause, Cause::kEntryMissing);
  EXPECT_EQ(get("10-B.conflist"), with_entry(list("b", "upper"), settings.entry).value_or("?"));
  EXPECT_EQ(get("10-a.conflist"), list("a"));
  EXPECT_EQ(get("05-x.conflist.bak"), list("x"));
  EXPECT_EQ(files::read_file(settings.cache_dir / "cni" / "10-B.conflist")->text,
            list("b", "upper"));
}

TEST_F(CniFolder, mode_and_owner_stay_and_equal_content_is_not_written) {
  put("10-a.conflist", list("a"));
  const std::filesystem::path path = settings.conf_dir / "10-a.conflist";
  ASSERT_EQ(::chmod(path.c_str(), 0640), 0);
  const bool root = ::geteuid() == 0;
  ASSERT_EQ(root ? ::chown(path.c_str(), 12, 34) : 0, 0);
  ST_ASSERT_OK(apply(settings));
  ST_ASSERT_VALUE(const auto now, files::read_file(path));
  EXPECT_EQ(now.mode, 0640U);
  EXPECT_EQ(now.uid, root ? 12U : ::geteuid());
  EXPECT_EQ(now.gid, root ? 34U : now.gid);
  const ino_t before = inode_of(path);
  ST_ASSERT_VALUE(const auto again, apply(settings));
  EXPECT_EQ(again.cause, Cause::kNone);
  EXPECT_EQ(inode_of(path), before);
}

TEST_F(CniFolder, says_why_it_wrote) {
  put("10-a.conflist", list("a"));
  ST_ASSERT_OK(apply(settings));
  const std::string ours = get("10-a.conflist");
  std::string behind = ours;
  behind.insert(behind.rfind(']'), ", {\"type\": \"istio-cni\"}");
  put("10-a.conflist", behind);
  ST_ASSERT_VALUE(const auto moved, apply(settings));
  EXPECT_EQ(moved.cause, Cause::kEntryMoved);
  EXPECT_EQ(moved.last, "istio-cni");
  settings.entry.timeout_ms = 500;
  EXPECT_EQ(apply(settings)->cause, Cause::kEntryChanged);
  EXPECT_EQ(apply(settings)->cause, Cause::kNone);
}

TEST_F(CniFolder, a_single_configuration_is_left_alone_and_embedded) {
  put("10-ptp.conf", single("ptp"));
  ST_ASSERT_VALUE(const auto applied, apply(settings));
  EXPECT_EQ(applied.file, kOwnList);
  EXPECT_EQ(applied.source, "10-ptp.conf");
  EXPECT_EQ(get("10-ptp.conf"), single("ptp"));
  EXPECT_EQ(get(kOwnList), list_around(single("ptp"), settings.entry).value_or("?"));
  EXPECT_EQ(apply(settings)->cause, Cause::kNone);

  put("10-ptp.conf", single("bridge"));
  EXPECT_EQ(apply(settings)->cause, Cause::kCopyOutdated);
  EXPECT_EQ(get(kOwnList), list_around(single("bridge"), settings.entry).value_or("?"));

  // The network plugin comes with a list now: ours goes.
  put("05-net.conflist", list("calico"));
  EXPECT_EQ(apply(settings)->file, "05-net.conflist");
  EXPECT_EQ(names(), (std::set<std::string>{"05-net.conflist", "10-ptp.conf"}));
}

// It delegates to the next one, whichever that is: a list around it would make it call itself.
TEST_F(CniFolder, multus_is_not_embedded_but_what_it_calls_is_extended) {
  put("00-multus.conf", single("multus-shim"));
  EXPECT_EQ(apply(settings).error().code, ErrorCode::kNotFound);
  put("10-ptp.conf", single("ptp"));
  EXPECT_EQ(apply(settings)->source, "10-ptp.conf");
  put("05-a.conflist", list("a"));
  EXPECT_EQ(apply(settings)->file, "05-a.conflist");
  EXPECT_EQ(get("00-multus.conf"), single("multus-shim"));
  EXPECT_FALSE(names().contains(kOwnList));
}

TEST_F(CniFolder, our_list_does_not_outlive_what_it_embeds) {
  put("10-ptp.json", single("ptp"));
  ST_ASSERT_OK(apply(settings));
  EXPECT_TRUE(names().contains(kOwnList));
  std::filesystem::remove(settings.conf_dir / "10-ptp.json");
  EXPECT_EQ(apply(settings).error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(names().empty());
}

TEST_F(CniFolder, a_link_is_not_replaced) {
  const auto elsewhere = folder->path() / "real.conflist";
  std::ofstream(elsewhere) << list("a");
  std::filesystem::create_symlink(elsewhere, settings.conf_dir / "10-a.conflist");
  ST_ASSERT_OK(apply(settings));
  EXPECT_TRUE(std::filesystem::is_symlink(settings.conf_dir / "10-a.conflist"));
  EXPECT_EQ(files::read_file(elsewhere)->text, list("a"));
  EXPECT_EQ(get(kOwnList), with_entry(list("a"), settings.entry).value_or("?"));
  ST_ASSERT_OK(retract(settings));
  EXPECT_EQ(names(), std::set<std::string>{"10-a.conflist"});
}

TEST_F(CniFolder, what_cannot_be_extended_is_left_alone_and_named) {
  put("10-a.conflist", "{\"torn");
  put("20-b.conflist", list("b"));
  const auto broken = apply(settings);
  ASSERT_FALSE(broken) << "the runtime does not load the second one either";
  EXPECT_EQ(broken.error().code, ErrorCode::kInvalid);
  EXPECT_NE(broken.error().message.find("10-a.conflist"), std::string::npos);
  EXPECT_EQ(get("10-a.conflist"), "{\"torn");
  EXPECT_EQ(get("20-b.conflist"), list("b"));

  put("10-a.conflist", single("list in the wrong file"));
  EXPECT_EQ(apply(settings).error().code, ErrorCode::kInvalid);
  std::filesystem::remove(settings.conf_dir / "10-a.conflist");
  put("00-early.conf", single("a"));
  EXPECT_EQ(apply(settings).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(names(), (std::set<std::string>{"00-early.conf", "20-b.conflist"}));
}

TEST_F(CniFolder, an_entry_that_the_plugin_would_refuse_is_taken_out) {
  put("10-a.conflist", list("a"));
  ST_ASSERT_OK(apply(settings));
  std::string later = get("10-a.conflist");
  later.replace(later.find("1.0.0"), 5, "1.9.0");
  put("10-a.conflist", later);
  EXPECT_EQ(apply(settings).error().code, ErrorCode::kUnsupported);
  std::string wanted = list("a");
  wanted.replace(wanted.find("1.0.0"), 5, "1.9.0");
  EXPECT_EQ(get("10-a.conflist"), wanted);
}

TEST_F(CniFolder, retract_restores_bytes_and_keeps_what_others_changed) {
  put("10-a.conflist", list("a"));
  ST_ASSERT_OK(apply(settings));
  ST_ASSERT_OK(retract(settings));
  EXPECT_EQ(get("10-a.conflist"), list("a"));

  ST_ASSERT_OK(apply(settings));
  std::string changed = get("10-a.conflist");
  changed.insert(changed.find("{\"type\": \"a\"}"), "{\"type\": \"new\"}, ");
  put("10-a.conflist", changed);
  put("20-b.conflist", with_entry(list("b"), settings.entry).value_or("?"));
  ST_ASSERT_OK(retract(settings));
  EXPECT_EQ(get("10-a.conflist"),
            "{\"cniVersion\": \"1.0.0\", \"name\": \"net\", \"plugins\": [{\"type\": \"new\"}, "
            "{\"type\": \"a\"}]}\n");
  EXPECT_EQ(get("20-b.conflist"), list("b"));
  ST_ASSERT_OK(retract(settings));
}

TEST_F(CniFolder, uninstall_leaves_the_node_as_found) {
  put("10-ptp.conf", single("ptp"));
  put("20-b.conflist", list("b"));
  std::ofstream(settings.bin_dir / "bridge") << "theirs";
  settings.entry.enrolled_namespaces = settings.cache_dir / "enrolled-namespaces";
  std::ofstream(settings.entry.enrolled_namespaces) << "shop\n";
  const auto before = names();
  {
    boost::asio::io_context context;
    Installer installer(context, settings, {});
    installer.start();
    EXPECT_TRUE(has_program());
    EXPECT_EQ(installer.status().file, (settings.conf_dir / kOwnList).string());
  }
  EXPECT_TRUE(uninstall(settings, milliseconds(1)).left.empty());
  EXPECT_EQ(names(), before);
  EXPECT_EQ(get("10-ptp.conf"), single("ptp"));
  EXPECT_FALSE(has_program());
  EXPECT_TRUE(std::filesystem::exists(settings.bin_dir / "bridge"));
  EXPECT_TRUE(std::filesystem::is_empty(settings.cache_dir));
  EXPECT_TRUE(uninstall(settings, milliseconds(1)).left.empty()) << "twice is no error";
}

TEST_F(CniFolder, uninstall_keeps_the_program_while_anything_names_it) {
  put("10-a.conflist", list("a"));
  ST_ASSERT_OK(apply(settings));
  std::filesystem::copy(settings.conf_dir / "10-a.conflist",
                        settings.conf_dir / "10-a.conflist.cilium_bak");
  std::ofstream(settings.bin_dir / "sidetrack-cni") << "the program";
  const Uninstalled done = uninstall(settings, milliseconds(1));
  ASSERT_EQ(done.left.size(), 1U);
  EXPECT_NE(done.left[0].find("10-a.conflist.cilium_bak still names sidetrack-cni"),
            std::string::npos);
  EXPECT_EQ(get("10-a.conflist"), list("a"));
  EXPECT_TRUE(has_program());
}

TEST_F(CniFolder, uninstall_keeps_the_program_for_a_file_that_nobody_can_load_yet) {
  std::ofstream(settings.bin_dir / "sidetrack-cni") << "the program";
  std::string broken = with_entry(list("a"), settings.entry).value_or("?");
  broken.erase(broken.rfind('}'));
  put("05-b.conflist", list("b"));
  put("10-a.conflist", broken);
  const Uninstalled done = uninstall(settings, milliseconds(1));
  ASSERT_EQ(done.left.size(), 1U);
  EXPECT_NE(done.left[0].find("10-a.conflist still names sidetrack-cni"), std::string::npos);
  EXPECT_EQ(get("10-a.conflist"), broken);
  EXPECT_TRUE(has_program());
  put("10-a.conflist", "{");  // broken, but not about us
  EXPECT_TRUE(uninstall(settings, milliseconds(1)).left.empty());
  EXPECT_FALSE(has_program());
}

TEST_F(CniFolder, uninstall_searches_what_is_too_large_for_a_configuration_but_named_like_one) {
  std::ofstream(settings.bin_dir / "sidetrack-cni") << "the program";
  put("10-a.conflist", list("a"));
  // Where it is read in pieces, the name lies across their border.
  const std::string filler(files::kMaxTextBytes - 5, ' ');
  put("20-large.json", filler + "sidetrack-cni" + filler);
  const Uninstalled done = uninstall(settings, milliseconds(1));
  ASSERT_EQ(done.left.size(), 1U);
  EXPECT_NE(done.left[0].find("20-large.json still names sidetrack-cni; therefore"),
            std::string::npos)
      << done.left[0];
  EXPECT_TRUE(has_program());
  put("20-large.json", filler + "somebody's-cni" + filler);
  EXPECT_TRUE(uninstall(settings, milliseconds(1)).left.empty());
  EXPECT_FALSE(has_program());
}

TEST_F(CniFolder, uninstall_passes_by_what_is_too_large_and_not_named_like_a_configuration) {
  std::ofstream(settings.bin_dir / "sidetrack-cni") << "the program";
  put("10-a.conflist", list("a"));
  put("net.d.tar", "sidetrack-cni" + std::string(files::kMaxTextBytes, ' '));
  const Uninstalled done = uninstall(settings, milliseconds(1));
  EXPECT_TRUE(done.left.empty()) << done.left[0];
  EXPECT_FALSE(has_program());
}

TEST_F(CniFolder, uninstall_says_of_a_file_that_it_cannot_be_read) {
  std::ofstream(settings.bin_dir / "sidetrack-cni") << "the program";
  // A regular file whose first page nobody can read.
  std::filesystem::create_symlink("/proc/self/mem", settings.conf_dir / "10-a.conflist");
  const Uninstalled done = uninstall(settings, milliseconds(1));
  ASSERT_EQ(done.left.size(), 1U);
  EXPECT_NE(done.left[0].find("10-a.conflist: Input/output error: it may still name sidetrack-cni"),
            std::string::npos)
      << done.left[0];
  EXPECT_TRUE(has_program());
}

TEST_F(CniFolder, uninstall_looks_at_folders_that_are_there) {
  std::ofstream(settings.bin_dir / "sidetrack-cni") << "the program";
  Settings mistyped = settings;
  mistyped.conf_dir += "x";
  const Uninstalled nothing = uninstall(mistyped, milliseconds(1));
  ASSERT_EQ(nothing.left.size(), 1U);
  EXPECT_NE(nothing.left[0].find(mistyped.conf_dir.string() + ": No such file or directory"),
            std::string::npos)
      << nothing.left[0];
  EXPECT_TRUE(has_program());
  put("10-a.conflist", with_entry(list("a"), settings.entry).value_or("?"));
  mistyped = settings;
  mistyped.bin_dir += "x";
  const Uninstalled half = uninstall(mistyped, milliseconds(1));
  ASSERT_EQ(half.left.size(), 1U);
  EXPECT_NE(half.left[0].find("no folder " + mistyped.bin_dir.string()), std::string::npos);
  EXPECT_EQ(get("10-a.conflist"), list("a"));
  EXPECT_TRUE(has_program());
}

}  // namespace
}  // namespace sidetrack::cni::install
