// SPDX-License-Identifier: Apache-2.0
#include "cni/install/folder.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <system_error>
#include <utility>

#include "sidetrack/files/whole_file.h"

namespace sidetrack::cni::install {
namespace {

bool is_configuration(std::string_view name) {
  return name.ends_with(".conf") || name.ends_with(".conflist") || name.ends_with(".json");
}

Result<std::vector<std::string>> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error) {
    return errno_error("list " + folder.string(), error.value());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// A copy for people, of what is there without us.
Result<void> keep_original(const Settings& settings, const std::string& name,
                           const files::FileText& file) {
  const auto original = without_entry(file.text, settings.entry.type);
  if (!original) {
    return {};
  }
  const std::filesystem::path folder = settings.cache_dir / "cni";
  if (const auto kept = files::read_file(folder / name); kept && kept->text == *original) {
    return {};
  }
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return errno_error("make " + folder.string(), errno);
  }
  return files::replace_file(folder / name, *original,
                             {.mode = file.mode, .owner = files::Owner{file.uid, file.gid}});
}

Cause cause_of(const Facts& before, const std::string& type) {
  const auto ours = std::count(before.types.begin(), before.types.end(), type);
  if (ours == 0) {
    return Cause::kEntryMissing;
  }
  return ours > 1 || before.types.back() != type ? Cause::kEntryMoved : Cause::kEntryChanged;
}

std::string main_of(const Facts& before, const std::string& type) {
  const auto found = std::find_if(before.types.begin(), before.types.end(),
                                  [&type](const std::string& one) { return one != type; });
  return found == before.types.end() ? "" : *found;
}

std::string last_of(const Facts& before, const std::string& type) {
  return before.types.back() == type ? "" : before.types.back();
}

Result<Applied> apply_in_place(const Settings& settings, const std::string& name,
                               const files::FileText& file) {
  const auto before = read_list(file.text);
  if (!before) {
    return before.error();
  }
  const auto text = with_entry(file.text, settings.entry);
  if (!text) {
    return text.error();
  }
  Applied applied{.file = name,
                  .source = name,
                  .network = before->name,
                  .inode = file.inode,
                  .main = main_of(*before, settings.entry.type),
                  .last = last_of(*before, settings.entry.type)};
  if (*text != file.text) {
    applied.cause = cause_of(*before, settings.entry.type);
    ST_TRY(keep_original(settings, name, file));
    ST_TRY(files::replace_file(
        settings.conf_dir / name, *text,
        {.mode = file.mode, .owner = files::Owner{file.uid, file.gid}, .expected = file.text}));
  }
  ST_TRY(files::remove_file(settings.conf_dir / kOwnList));
  return applied;
}

Result<Applied> apply_beside(const Settings& settings, const std::string& name,
                             const files::FileText& file) {
  const bool list = name.ends_with(".conflist");
  const auto before = list ? read_list(file.text) : read_single(file.text);
  if (!before) {
    return before.error();
  }
  if (name < kOwnList) {
    return make_error(ErrorCode::kUnsupported,
                      std::string("it comes before ") + kOwnList +
                          ", which would have to embed it: give it a later name");
  }
  const auto text =
      list ? with_entry(file.text, settings.entry) : list_around(file.text, settings.entry);
  if (!text) {
    return text.error();
  }
  const std::filesystem::path own = settings.conf_dir / kOwnList;
  const auto now = files::read_file(own);
  if (!now && now.error().code != ErrorCode::kNotFound) {
    return now.error();
  }
  Applied applied{.file = kOwnList,
                  .source = name,
                  .network = before->name,
                  .inode = file.inode,
                  .main = main_of(*before, settings.entry.type)};
  if (!now || now->text != *text) {
    applied.cause = now ? Cause::kCopyOutdated : Cause::kEntryMissing;
    ST_TRY(files::replace_file(own, *text,
                               {.mode = file.mode,
                                .owner = files::Owner{file.uid, file.gid},
                                .expected = now ? now->text : ""}));
  }
  return applied;
}

// Multus calls the plugins of the next configuration, which it reads itself: a list of ours around
// it would make it call itself.
bool is_multus(const std::string& name, const files::FileText& file) {
  const auto facts = name.ends_with(".conflist") ? read_list(file.text) : read_single(file.text);
  return facts && (facts->types.front() == "multus" || facts->types.front() == "multus-shim");
}

struct Chosen {
  std::string name;
  files::FileText file;
};

// The configuration that makes the pods' network. kNotFound: there is none.
Result<Chosen> choose(const Settings& settings) {
  const auto names = configurations(settings.conf_dir);
  if (!names) {
    return names.error();
  }
  for (const std::string& name : *names) {
    if (name == kOwnList) {
      continue;
    }
    auto file = files::read_file(settings.conf_dir / name);
    if (!file) {
      return file.error();
    }
    if (!is_multus(name, *file)) {
      return Chosen{.name = name, .file = std::move(*file)};
    }
  }
  // Ours embeds what is gone: the node must not look as if it had a network.
  ST_TRY(files::remove_file(settings.conf_dir / kOwnList));
  return make_error(ErrorCode::kNotFound, "no network configuration in " +
                                              settings.conf_dir.string() +
                                              " yet: the cluster's network plugin writes one");
}

Result<void> retract_from(const Settings& settings, const std::string& name) {
  const std::filesystem::path path = settings.conf_dir / name;
  const auto file = files::read_file(path);
  if (!file || file->is_link || !mentions(file->text, settings.entry.type)) {
    return {};
  }
  const auto text = without_entry(file->text, settings.entry.type);
  if (!text) {
    return text.error().within(path.string());
  }
  return files::replace_file(
      path, *text,
      {.mode = file->mode, .owner = files::Owner{file->uid, file->gid}, .expected = file->text});
}

// However large the file is.
Result<bool> contains(const std::filesystem::path& path, std::string_view text) {
  std::ifstream file(path, std::ios::binary);
  std::string piece(files::kMaxTextBytes, '\0');
  std::string window;  // the piece, after as much of the one before as may begin the text
  while (file) {
    file.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    window.append(piece, 0, static_cast<std::size_t>(file.gcount()));
    if (window.find(text) != std::string::npos) {
      return true;
    }
    window.erase(0, window.size() - std::min(window.size(), text.size() - 1));
  }
  return file.eof() ? Result<bool>(false)
                    : make_error(ErrorCode::kIo, "read " + path.string() + ": it ends too early");
}

Result<bool> may_mention_us(const Settings& settings, const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) {
    return false;  // a folder, or a link that leads nowhere
  }
  const auto file = files::read_file(path);
  if (file) {
    return may_mention(file->text, settings.entry.type);
  }
  const bool is_too_large = file.error().code == ErrorCode::kInvalid;
  if (file.error().code == ErrorCode::kNotFound ||
      (is_too_large && !is_configuration(path.filename().string()))) {
    return false;
  }
  return is_too_large ? contains(path, settings.entry.type) : Result<bool>(file.error());
}

}  // namespace

std::string_view name_of(Cause cause) {
  switch (cause) {
    case Cause::kNone:
      break;
    case Cause::kEntryMissing:
      return "entry_missing";
    case Cause::kEntryMoved:
      return "entry_moved";
    case Cause::kEntryChanged:
      return "entry_changed";
    case Cause::kCopyOutdated:
      return "copy_outdated";
  }
  return "none";
}

Result<std::vector<std::string>> configurations(const std::filesystem::path& folder) {
  auto names = names_in(folder);
  if (names) {
    std::erase_if(*names, [](const std::string& name) { return !is_configuration(name); });
  }
  return names;
}

Result<Applied> apply(const Settings& settings) {
  const auto chosen = choose(settings);
  if (!chosen) {
    return chosen.error();
  }
  const auto& [name, file] = *chosen;
  const bool editable = name.ends_with(".conflist") && !file.is_link;
  auto applied =
      editable ? apply_in_place(settings, name, file) : apply_beside(settings, name, file);
  if (applied) {
    return applied;
  }
  // Pods could not start with an entry that the plugin refuses to serve.
  if (applied.error().code == ErrorCode::kUnsupported) {
    ST_TRY(files::remove_file(settings.conf_dir / kOwnList));
    ST_TRY(retract_from(settings, name));
  }
  return applied.error().within((settings.conf_dir / name).string());
}

Result<void> retract(const Settings& settings) {
  const auto names = configurations(settings.conf_dir);
  if (!names) {
    return names.error();
  }
  Result<void> outcome = files::remove_file(settings.conf_dir / kOwnList);
  for (const std::string& name : *names) {
    if (const auto retracted = retract_from(settings, name); outcome && !retracted) {
      outcome = retracted;
    }
  }
  return outcome;
}

Result<std::vector<Mention>> mentioning(const Settings& settings) {
  const auto names = names_in(settings.conf_dir);
  if (!names) {
    return names.error();
  }
  std::vector<Mention> mentions;
  for (const std::string& name : *names) {
    const auto mention = may_mention_us(settings, settings.conf_dir / name);
    if (!mention || *mention) {
      mentions.push_back({.name = name, .problem = mention ? "" : mention.error().message});
    }
  }
  return mentions;
}

}  // namespace sidetrack::cni::install
